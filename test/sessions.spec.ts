import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { WebSocket } from 'ws';
import { CourierSocket, call, refusedUpgrade } from './support/courier-client.js';
import { OP, RawSocket, rawFrame } from './support/raw.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let tenant: Tenant;
let base: string;

beforeAll(async () => {
  cluster = await startCluster({ links: true, env: { DRAIN_BUDGET: '4s' } });
  tenant = await createTenant(cluster, 'acme');
  base = cluster.gatewayUrls[0]!;
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** A sample of the gateway's metrics. */
async function metric(name: string, url = base): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`posthorn_${name}`));
  return Number(line?.split(' ').at(-1));
}

/** How many subscriptions the NATS server holds. */
async function natsSubscriptions(): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${cluster.nats.monitorPort}/subsz`);
  return ((await answer.json()) as { num_subscriptions: number }).num_subscriptions;
}

async function signedUrl(sub: string, claims: object = {}): Promise<string> {
  const { body } = await (await tenant.as(sub, claims))('GET', '/v1/sign');
  return body.url;
}

const texts = (socket: CourierSocket, action: string) =>
  socket.frames.filter((frame) => frame.action === action);

describe('sockets that come and go', () => {
  it('leave nothing behind, at whatever moment they go', async () => {
    await using quiet = await tenant.socket('quiet');
    await quiet.settle();
    const url = await signedUrl('ann');
    const subscriptions = await natsSubscriptions();
    const leave: ((socket: WebSocket) => void)[] = [
      (socket) => socket.terminate(),
      (socket) => socket.close(),
      (socket) => socket.once('message', () => socket.close()),
      (socket) => socket.once('message', () => socket.terminate()),
      (socket) => setTimeout(() => socket.terminate(), 5),
      (socket) => setTimeout(() => socket.close(), 10),
    ];
    for (let batch = 0; batch < 8; batch++) {
      await Promise.all(
        Array.from({ length: 50 }, async (_, i) => {
          const socket = new WebSocket(url);
          const closed = new Promise((resolve) => socket.once('close', resolve));
          socket.on('error', () => {});
          socket.once('open', () => {
            for (let topic = 0; topic < 5; topic++) {
              socket.send(JSON.stringify({ action: 'subscribe', topic: `gone/${batch}/${i}/${topic}` }));
            }
            socket.send(JSON.stringify({ action: 'publish', topic: 'gone/x', message: {} }));
            socket.send(JSON.stringify({ action: 'ping' }));
            leave[i % leave.length]!(socket);
          });
          await closed;
        }),
      );
    }
    await eventually(
      async () => ((await metric('connections')) === 1 && (await metric('feeds')) === 1) || undefined,
    );
    await eventually(async () => (await natsSubscriptions()) <= subscriptions || undefined);
    await quiet.settle();
  }, 30_000);

  it('that do not read are given up, and nobody else notices', async () => {
    const before = await metric('closes_total{reason="slowConsumer"');
    await using deaf = await RawSocket.open(await signedUrl('deaf'));
    await using ann = await tenant.socket('ann');
    await ann.subscribe('flood');
    deaf.send(rawFrame(OP.text, '{"action":"subscribe","topic":"flood","ref":"s"}'));
    await eventually(async () => ((await deaf.next())?.payload.includes('subscribed') ? true : undefined));
    deaf.socket.pause();
    const pad = 'x'.repeat(500_000);
    for (let n = 0; (await metric('closes_total{reason="slowConsumer"')) === before; n++) {
      expect(n).toBeLessThan(100);
      const body = { topic: 'flood', action: 'publish', message: { n, pad } };
      expect((await tenant.service('POST', '/v1/hook', body)).status).toBe(200);
    }
    await ann.settle();
    expect(ann.closed).toBeUndefined();
    await eventually(async () => ((await metric('connections')) === 1 ? true : undefined), 10_000);
  }, 30_000);
});

describe('a subscription', () => {
  it('whose subject is longer than a line of NATS is refused, and harms nobody', async () => {
    const long = await createTenant(cluster, '\u{1F600}'.repeat(100));
    const room = { event_id: 'e', session_id: '\u{1F600}'.repeat(60) };
    await using ann = await tenant.socket('ann');
    await using eve = await long.socket('eve', { room });
    await ann.subscribe('calm');
    const topic = `room/session/${room.session_id}/${'\u{1F600}'.repeat(250)}`;
    eve.send({ action: 'subscribe', topic, ref: 's' });
    expect(await eve.next('error', 's')).toMatchObject({ code: 'request_invalid' });
    await tenant.service('POST', '/v1/hook', { topic: 'calm', action: 'publish', message: {} });
    await ann.count('message', 1);
  });

  it('that begins under a stream of events takes them over from a pattern: each comes once', async () => {
    await using svc = await tenant.socket('svc', { role: 'service' });
    await svc.subscribe('stream.>');
    const pubsub = tenant.pubsub();
    const topics = Array.from({ length: 10 }, (_, i) => `stream/${i}`);
    let sent = 0;
    let stop = false;
    const publishing = Promise.all(
      topics.map(async (topic) => {
        while (!stop) {
          await pubsub.global.topic(topic).publish({ n: sent++ });
        }
      }),
    );
    for (const topic of [...topics, 'stream.*']) {
      await svc.subscribe(topic);
      await svc.settle();
    }
    stop = true;
    await publishing;
    await svc.count('message', sent);
    await svc.settle();
    const got = texts(svc, 'message').map(({ message }) => (message as { n: number }).n);
    expect(got).toHaveLength(sent);
    expect(new Set(got).size).toBe(sent);
    for (const topic of topics) {
      const positions = texts(svc, 'message')
        .filter((frame) => frame.topic === topic)
        .map(({ position }) => Number(String(position).split('-')[1]));
      expect(positions).toEqual([...positions].sort((a, b) => a - b));
    }
    await pubsub.close();
  });

  it('asked for twice begins once, where it began', async () => {
    await using ann = await tenant.socket('ann');
    for (const [topic, ref] of [
      ['twice/a', '1'],
      ['twice.a', '2'],
    ] as const) {
      ann.send({ action: 'subscribe', topic, ref });
    }
    const [first, second] = [await ann.next('subscribed', '1'), await ann.next('subscribed', '2')];
    expect(second).toEqual({ ...first, topic: 'twice.a', ref: '2' });
    ann.send({ action: 'publish', topic: 'twice/a', message: {} });
    await ann.count('message', 1);
    await ann.settle();
    expect(texts(ann, 'message')).toHaveLength(1);
  });
});

describe('a renewed token', () => {
  it('takes away what it no longer allows, and nothing else', async () => {
    const room = { event_id: 'e1', session_id: 's1' };
    await using ann = await tenant.socket('ann', { role: 'service', room });
    const held = [
      'plain',
      'user:ann',
      'user:bob',
      'community:join',
      'room/session/s1/hi',
      'usernotification:created',
      'a.*',
    ];
    for (const topic of held) await ann.subscribe(topic);
    const renew = async (claims: object) => {
      const from = ann.frames.length;
      ann.send({ action: 'auth', token: await tenant.token('ann', claims) });
      await ann.find(({ action }) => action === 'welcome', from);
      return ann.frames
        .slice(from)
        .flatMap(({ action, topic }) => (action === 'unsubscribed' ? [topic] : []));
    };
    expect(await renew({ room })).toEqual(['user:bob', 'community:join', 'usernotification:created', 'a.*']);
    expect(await renew({})).toEqual(['room/session/s1/hi']);
    expect(await renew({ permissions: { subscribe: ['user:ann'] } })).toEqual(['plain']);
    for (const topic of ['plain', 'user:bob', 'user:ann', 'a/b']) {
      await tenant.service('POST', '/v1/hook', { topic, action: 'publish', message: { topic } });
    }
    await ann.count('message', 1);
    await ann.settle();
    expect(texts(ann, 'message').map(({ topic }) => topic)).toEqual(['user:ann']);
  });

  it('opens and closes broadcasts', async () => {
    const deaf = { permissions: { subscribe: ['a'] } };
    await using ann = await tenant.socket('ann', deaf);
    const broadcast = async (n: number) => {
      const { status } = await tenant.service('POST', '/v1/hook', { action: 'broadcast', message: { n } });
      expect(status).toBe(200);
      await ann.settle();
    };
    const renew = async (claims: object) => {
      const from = ann.frames.length;
      ann.send({ action: 'auth', token: await tenant.token('ann', claims) });
      await ann.find(({ action }) => action === 'welcome', from);
    };
    await broadcast(1);
    await renew({});
    await broadcast(2);
    await renew({});
    await broadcast(3);
    await renew(deaf);
    await broadcast(4);
    await renew({});
    await broadcast(5);
    await ann.count('broadcast', 3);
    expect(texts(ann, 'broadcast').map(({ message }) => message)).toEqual([{ n: 2 }, { n: 3 }, { n: 5 }]);
  });

  it('does not help a payload that grows beyond what a user may send', async () => {
    await using ann = await tenant.socket('ann');
    const numbers = `[${Array.from({ length: 10_000 }, () => '1e20').join()}]`;
    ann.send(`{"action":"publish","topic":"big","message":{"numbers":${numbers}},"ref":"p"}`);
    expect(await ann.next('error', 'p')).toMatchObject({ code: 'payload_too_large' });
  });
});

describe('while the link to NATS flaps', () => {
  it('nothing is accepted that is not stored, sockets stay, and all goes on afterwards', async () => {
    const gateway = cluster.app('gateway');
    const link = cluster.natsLink(gateway);
    await using ann = await tenant.socket('ann');
    await ann.subscribe('flap');
    const url = await signedUrl('late');
    const pubsub = tenant.pubsub();
    await pubsub.ready;
    for (let round = 0; round < 3; round++) {
      link.cut();
      await gateway.unready();
      const ref = (name: string) => `${name}-${round}`;
      ann.send({ action: 'publish', topic: 'flap', message: { lost: round }, ref: ref('publish') });
      ann.send({ action: 'subscribe', topic: `flap/${round}`, ref: ref('subscribe') });
      ann.send({ action: 'subscribe', topic: 'flap', ref: ref('known') });
      ann.send({ action: 'publish', topic: 'flap', message: { lost: round }, ref: ref('behind') });
      for (const name of ['publish', 'subscribe', 'behind']) {
        expect(await ann.next('error', ref(name))).toMatchObject({ code: 'unavailable' });
      }
      await ann.next('subscribed', ref('known'));
      expect(await refusedUpgrade(url)).toBe(503);
      link.restore();
      await gateway.ready();
      await pubsub.global.topic('flap').publish({ round });
      await ann.find(({ message }) => (message as { round?: number })?.round === round);
      await ann.subscribe(`flap/${round}`);
    }
    for (let i = 0; i < 10; i++) {
      link.reset();
      ann.send({ action: 'subscribe', topic: `storm/${i}`, ref: `storm-${i}` });
      ann.send({ action: 'unsubscribe', topic: 'storm/0' });
      await sleep(20);
    }
    await gateway.ready();
    for (let i = 1; i < 10; i++) {
      await eventually(async () => {
        await ann.find(({ ref }) => ref === `storm-${i}`);
        return ann.subscribe(`storm/${i}`).catch(() => undefined);
      });
      await pubsub.global.topic(`storm/${i}`).publish({ storm: i });
    }
    await eventually(
      async () =>
        texts(ann, 'message').filter(({ topic }) => String(topic).startsWith('storm/')).length === 9 ||
        undefined,
    );
    await ann.settle();
    expect(texts(ann, 'message').filter(({ message }) => 'lost' in (message as object))).toEqual([]);
    // Broadcasts, flap, three below it, nine of the storm.
    expect(await metric('feeds')).toBe(14);
    await pubsub.close();
  }, 60_000);
});

describe('SIGTERM of a gateway behind a balancer that follows /health/ready', () => {
  it('is answered on for DRAIN_DELAY, and each connection ends with its answer', async () => {
    const gateway = await cluster.addReplica('gateway', { DRAIN_DELAY: '4s' });
    const token = await tenant.token('ann');
    const ask = () => call(gateway.url, token, 'GET', '/v1/topic');
    expect((await ask()).headers.get('connection')).toBe('keep-alive');
    const exited = gateway.exited!;
    const began = performance.now();
    process.kill(gateway.pid!, 'SIGTERM');
    await gateway.unready();
    for (let i = 0; i < 3; i++) {
      const { status, headers } = await ask();
      expect({ status, connection: headers.get('connection') }).toEqual({ status: 200, connection: 'close' });
    }
    expect(await exited).toEqual({ code: 0, signal: null });
    expect(performance.now() - began).toBeGreaterThanOrEqual(3_990);
  }, 60_000);
});

describe('SIGTERM under load', () => {
  it('answers what was sent, sends every socket elsewhere, and ends with code 0 within the budget', async () => {
    const gateway = await cluster.addReplica('gateway');
    const token = await tenant.token('ann');
    const { body } = await call(gateway.url, token, 'GET', '/v1/sign');
    const sockets = Array.from({ length: 60 }, () => new CourierSocket(body.url));
    for (const socket of sockets) await socket.next('welcome');
    for (const socket of sockets) await socket.subscribe('drain');
    await using deaf = await RawSocket.open(body.url);
    deaf.socket.pause();
    await using elsewhere = await tenant.socket('bob');
    await elsewhere.subscribe('drain/rest');
    const service = await tenant.token('svc', { role: 'service' });
    const statuses: number[] = [];
    let draining = true;
    const rest = Array.from({ length: 3 }, async () => {
      while (draining) {
        const hook = { topic: 'drain/rest', action: 'publish', message: {} };
        const answer = await call(gateway.url, service, 'POST', '/v1/hook', hook).catch(() => undefined);
        // Nobody listens any more: only what was not accepted may go without an answer.
        if (!answer) return;
        statuses.push(answer.status);
      }
    });
    for (const [i, socket] of sockets.entries()) {
      for (let n = 0; n < 20; n++) {
        socket.send({ action: 'publish', topic: 'drain', message: { i, n }, ref: `p${n}` });
      }
    }
    // What the gateway has read when the signal comes, it answers.
    for (const socket of sockets) await socket.next('published', 'p0');
    const began = Date.now();
    const exited = gateway.exited!;
    process.kill(gateway.pid!, 'SIGTERM');
    const ends = await Promise.all(sockets.map((socket) => socket.end()));
    expect(await exited).toEqual({ code: 0, signal: null });
    expect(Date.now() - began).toBeLessThan(10_000);
    draining = false;
    await Promise.all(rest);
    expect(new Set(statuses)).toEqual(new Set([200]));
    await elsewhere.count('message', statuses.length);
    await elsewhere.settle();
    expect(texts(elsewhere, 'message')).toHaveLength(statuses.length);
    expect(new Set(ends.map(({ code }) => code))).toEqual(new Set([1012]));
    for (const socket of sockets) {
      expect(socket.frames.at(-1)).toMatchObject({ action: 'reconnect', after_ms: expect.any(Number) });
      expect(texts(socket, 'published')).toHaveLength(20);
    }
  }, 60_000);
});
