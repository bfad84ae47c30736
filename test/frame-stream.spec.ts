/** `POST /v1/stream`: what a socket brings down, without a socket (docs/protocols/inthe-am.md, "Event stream"). */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { parseCursor } from '@posthorn/contracts';
import { rawPublish, startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket } from './support/courier-client.js';
import { FrameStreamClient, type FrameStreamRequest } from './support/frame-stream.js';
import { createTenant, eventually, seconds, type Tenant } from './support/tenant.js';

const ORIGIN = 'https://app.example';

let cluster: TestCluster;
let acme: Tenant;

beforeAll(async () => {
  cluster = await startCluster({
    replicas: { gateway: 2 },
    links: true,
    env: { HEARTBEAT: '1s', DRAIN_BUDGET: '4s', STREAM_LIMIT: '4', ALLOWED_ORIGINS: ORIGIN },
  });
  acme = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

interface Options {
  readonly claims?: object;
  readonly gateway?: number;
  readonly headers?: Record<string, string>;
}

const ask = async (sub: string, body: unknown, { claims = {}, gateway = 0, headers = {} }: Options = {}) =>
  FrameStreamClient.open(cluster.gatewayUrls[gateway]!, await acme.token(sub, claims), body, headers);
const open = (sub: string, request: FrameStreamRequest, options?: Options) => ask(sub, request, options);
const topics = (...names: string[]) => ({ subscriptions: names.map((topic) => ({ topic })) });

async function publish(topic: string, message: object): Promise<string> {
  const { status, headers } = await acme.service('POST', '/v1/hook', { topic, action: 'publish', message });
  expect(status).toBe(200);
  return headers.get('posthorn-position')!;
}

async function broadcast(message: object): Promise<void> {
  const { status } = await acme.service('POST', '/v1/hook', { action: 'broadcast', message });
  expect(status).toBe(200);
}

async function metric(name: string, gateway = 0): Promise<number> {
  const text = await (await fetch(`${cluster.gatewayUrls[gateway]}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`posthorn_${name}`));
  return Number(line?.split(' ').at(-1));
}

/** The numbers of a topic's events, in the order in which they came. */
const numbers = (client: FrameStreamClient, topic: string) =>
  client
    .of('message')
    .filter((frame) => frame.topic === topic)
    .map(({ message }) => (message as { n: number }).n);
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe("a socket's downstream over HTTP", () => {
  it('brings the frames of a socket', async () => {
    const exp = seconds() + 600;
    await using ann = await open('ann', topics('news', 'community:join', 'a b'), { claims: { exp } });
    expect(ann.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(ann.headers.get('cache-control')).toBe('no-store');
    expect(ann.frames[0]).toEqual({
      action: 'welcome',
      connection: expect.stringMatching(/^[0-9a-f-]{36}$/),
      audience: 'acme',
      expires: new Date(exp * 1_000).toISOString(),
    });
    await ann.count('error', 2);
    const [subscribed] = await ann.count('subscribed', 1);
    expect(subscribed).toEqual({
      action: 'subscribed',
      topic: 'news',
      position: expect.any(String),
      ref: 'news',
    });
    expect(ann.of('error').map(({ code, ref }) => [code, ref])).toEqual([
      ['forbidden', 'community:join'],
      ['request_invalid', 'a b'],
    ]);
    const position = await publish('news', { n: 1 });
    await broadcast({ all: 1 });
    expect((await ann.count('message', 1))[0]).toEqual({
      action: 'message',
      topic: 'news',
      id: expect.any(String),
      position,
      message: { n: 1 },
    });
    expect((await ann.count('broadcast', 1))[0]).toMatchObject({ message: { all: 1 } });
    const pong = await ann.find(({ action }) => action === 'pong', ann.frames.length);
    expect(parseCursor(String(pong.position))).toBeDefined();
  });

  it('shares what it hears with sockets, whatever stands in a name or a payload', async () => {
    const room = { event_id: 'e', session_id: 's' };
    const name = 'room/session/s/two\nlines';
    const token = await acme.token('bob', { room });
    await using socket = await CourierSocket.open(cluster.gatewayUrls[0]!, token);
    await socket.subscribe(name);
    await socket.subscribe('bob/lines');
    await using bob = await open('bob', topics(name, 'bob/lines'), { claims: { room } });
    await bob.count('subscribed', 2);
    await publish(name, { n: 1 });
    await rawPublish(cluster.nats, 'ph.acme.global.-.bob.lines', 'NATS/1.0\r\n\r\n', '{\r\n\r\n "n": 2\n}\n');
    await bob.count('message', 2);
    const heard = await socket.count('message', 2);
    expect(bob.of('message')).toEqual(heard);
    expect(heard.map(({ message }) => message)).toEqual([{ n: 1 }, { n: 2 }]);
  });

  it('goes on at another gateway without gap or double, with patterns, broadcasts and under load', async () => {
    const names = upTo(6).map((n) => `load/${n}`);
    const claims = { role: 'service' };
    const counts = new Map<string, number>();
    let stopped = false;
    const pubsub = acme.pubsub();
    const load = (async () => {
      for (let n = 1; !stopped; n++) {
        for (const name of names) {
          await pubsub.global.topic(name).publish({ n });
          counts.set(name, n);
        }
        if (n % 20 === 0) await broadcast({ n: n / 20 });
        await sleep(5);
      }
    })();
    const places = new Map<string, string>();
    const received = new Map<string, number[]>(names.map((name) => [name, []]));
    const broadcasts: number[] = [];
    let lastBroadcast: string | undefined;
    const asked = ['load/1', 'load/2', 'load/3', 'load/*'];
    try {
      for (let round = 0; round < 6; round++) {
        await using client = await open(
          'svc',
          {
            subscriptions: asked.map((topic) => {
              const since = places.get(topic);
              return since ? { topic, since } : { topic };
            }),
            ...(lastBroadcast ? { broadcasts: lastBroadcast } : {}),
          },
          { claims, gateway: round % 2 },
        );
        await client.count('subscribed', asked.length + (lastBroadcast ? 1 : 0));
        for (const { recovered } of client.of('subscribed')) expect(recovered).not.toBe(false);
        // A pattern is resumed from a pong: with the last round everything has come.
        if (round === 4) stopped = true;
        if (round >= 4) await load;
        const from = client.frames.length;
        const pong = await client.find(
          ({ action, position }) => action === 'pong' && position !== undefined,
          from,
        );
        await client[Symbol.asyncDispose]();
        const upToPong = client.frames.slice(0, client.frames.indexOf(pong));
        for (const frame of upToPong) {
          const { n } = (frame.message ?? {}) as { n: number };
          if (frame.action === 'message') received.get(String(frame.topic))!.push(n);
          if (frame.action === 'broadcast') broadcasts.push(n);
        }
        for (const topic of asked) places.set(topic, String(pong.position));
        lastBroadcast = String(pong.position);
      }
    } finally {
      stopped = true;
      await load;
      await pubsub.close();
    }
    for (const name of names) {
      const all = received.get(name)!;
      // The first stream began in the middle.
      expect(all).toEqual(Array.from({ length: counts.get(name)! - all[0]! + 1 }, (_, i) => all[0]! + i));
    }
    expect(broadcasts).toEqual(upTo(broadcasts.at(-1)!).slice(broadcasts[0]! - 1));
    expect(broadcasts.at(-1)).toBe(Math.floor(counts.get('load/1')! / 20));
  }, 60_000);

  it('says where history was lost', async () => {
    await publish('lost', { n: 1 });
    await using ann = await open('ann', { subscriptions: [{ topic: 'lost', since: 'abcz1-5', ref: 'r' }] });
    expect((await ann.count('subscribed', 1))[0]).toMatchObject({ recovered: false, ref: 'r' });
    await ann.count('message', 1);
    expect(numbers(ann, 'lost')).toEqual([1]);
  });

  it('refuses what is no request, and says where', async () => {
    const refusal = async (body: unknown) => {
      const { status, body: problem } = await ask('ann', body);
      return [status, problem.code, problem.errors?.map(({ path }: { path: string }) => path)];
    };
    expect(await refusal('[]')).toEqual([422, 'request_invalid', ['']]);
    expect(await refusal('')).toEqual([422, 'request_invalid', ['']]);
    expect(await refusal({})).toEqual([422, 'request_invalid', ['/subscriptions']]);
    expect(
      await refusal({
        subscriptions: [{ topic: 'a' }, 'b', {}, { topic: 'c', since: 'never' }, { topic: 'd', ref: 1 }],
        broadcasts: 5,
      }),
    ).toEqual([
      422,
      'request_invalid',
      [
        '/broadcasts',
        '/subscriptions/1',
        '/subscriptions/2/topic',
        '/subscriptions/3/since',
        '/subscriptions/4/ref',
      ],
    ]);
    const many = upTo(129).map((n) => `many/${n}`);
    expect(await refusal(topics(...many))).toEqual([429, 'subscription_limit', undefined]);
    const repeated = upTo(3 * 128 + 1).map(() => 'many/1');
    expect(await refusal(topics(...repeated))).toEqual([429, 'subscription_limit', undefined]);
    await using ann = await open('ann', topics(...many.slice(1), many[1]!));
    await ann.count('subscribed', 129);
  });

  it("counts the three topics of one event's name in a room as one", async () => {
    const room = { event_id: 'e', session_id: 's' };
    const three = (n: number) =>
      ['organization', 'event/e', 'session/s'].map((scope) => `room/${scope}/name-${n}`);
    await using member = await open('mia', topics(...upTo(128).flatMap(three)), { claims: { room } });
    expect(member.frames[0]).toMatchObject({ action: 'welcome', room });
    await member.count('subscribed', 3 * 128);
    const { body } = await ask('mia', topics(...upTo(129).flatMap(three)), { claims: { room } });
    expect(body.code).toBe('subscription_limit');
  });

  it('knows its callers, and keeps to the limit of streams', async () => {
    const base = cluster.gatewayUrls[0]!;
    expect((await FrameStreamClient.open(base, 'nonsense', topics('a'))).body.code).toBe('unauthorized');
    const { key } = (await (await acme.as('lim'))('GET', '/v1/sign?for=stream')).body;
    expect((await FrameStreamClient.open(base, key, topics('a'))).status).toBe(401);
    const before = await metric('streams{');
    const streams = await Promise.all(upTo(4).map(() => open('lim', topics('a'))));
    expect(await metric('streams{')).toBe(before + 4);
    expect((await open('lim', topics('a'))).body.code).toBe('subscription_limit');
    for (const stream of streams) await stream[Symbol.asyncDispose]();
    await eventually(async () => (await metric('streams{')) === before || undefined);
    await using next = await open('lim', topics('a'));
    expect(next.status).toBe(200);
  });

  it('says why it ends: the token has expired, or was revoked', async () => {
    await using eve = await open('eve', topics('a'), { claims: { exp: seconds() + 3 } });
    await using rita = await open('rita', topics('a'), { claims: { jti: 'rita-1' } });
    const admin = await acme.as('root', { role: 'admin' });
    expect((await admin('POST', '/v1/revocations', { tokenId: 'rita-1' })).status).toBe(200);
    await rita.end();
    expect(rita.frames.at(-1)).toMatchObject({ action: 'error', code: 'unauthorized' });
    await eve.end();
    expect(eve.frames.at(-1)).toMatchObject({ action: 'error', code: 'token_expired' });
    const again = await ask('rita', topics('a'), { claims: { jti: 'rita-1' } });
    expect(again.body).toMatchObject({ status: 401, code: 'unauthorized' });
  });

  it('cuts off who does not read, and nobody else notices', async () => {
    const cuts = () => metric('closes_total{reason="slowConsumer"');
    const before = await cuts();
    const body = JSON.stringify(topics('flood'));
    const response = await fetch(`${cluster.gatewayUrls[0]}/v1/stream`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await acme.token('deaf')}`, 'content-type': 'application/json' },
      body,
    });
    expect(response.status).toBe(200);
    await using ann = await open('ann', topics('flood'));
    await ann.count('subscribed', 1);
    let sent = 0;
    while ((await cuts()) === before) {
      expect(++sent).toBeLessThan(100);
      await publish('flood', { n: sent, pad: 'x'.repeat(500_000) });
    }
    await ann.until(() => numbers(ann, 'flood').length === sent);
    expect(numbers(ann, 'flood')).toEqual(upTo(sent));
    await response.body!.cancel().catch(() => {});
  }, 60_000);

  it('is sent elsewhere when its gateway goes down', async () => {
    const clients = await Promise.all(upTo(6).map((n) => open(`drain-${n}`, topics('a'), { gateway: 1 })));
    const gateway = cluster.app('gateway', 1);
    const stopped = gateway.stop();
    await Promise.all(clients.map((client) => client.end()));
    for (const client of clients) {
      expect(client.frames.at(-1)).toEqual({ action: 'reconnect', after_ms: expect.any(Number) });
    }
    await stopped;
    await gateway.start();
  }, 30_000);

  it('is refused while the event store is away', async () => {
    const gateway = cluster.app('gateway', 1);
    const link = cluster.natsLink(gateway);
    link.cut();
    await gateway.unready();
    try {
      const { status, headers, body } = await ask('ann', topics('a'), { gateway: 1 });
      expect({ status, code: body.code }).toEqual({ status: 503, code: 'unavailable' });
      expect(headers.get('retry-after')).toBe('1');
    } finally {
      link.restore();
    }
    await gateway.ready();
  }, 60_000);
});

describe('a page of an allowed origin', () => {
  const CALLS = [
    ['POST', '/v1/stream', { subscriptions: [] }],
    ['GET', '/v1/sign', undefined],
    ['POST', '/v1/hook', { topic: 'cors', action: 'publish', message: {} }],
    ['GET', '/v1/notifications', undefined],
  ] as const;
  const listed = (header: string | null) => (header ?? '').toLowerCase().split(/, */);

  it.each(CALLS)('may call %s %s, and read what it is told in headers', async (method, path, body) => {
    const url = cluster.gatewayUrls[0] + path;
    const wanted = ['authorization', 'content-type', 'idempotency-key'];
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: {
        origin: ORIGIN,
        'access-control-request-method': method,
        'access-control-request-headers': wanted.join(','),
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe(ORIGIN);
    expect(listed(preflight.headers.get('access-control-allow-methods'))).toContain(method.toLowerCase());
    expect(listed(preflight.headers.get('access-control-allow-headers'))).toEqual(
      expect.arrayContaining(wanted),
    );
    const hangUp = new AbortController();
    const token = await acme.token('ann');
    const call = (headers: object) =>
      fetch(url, {
        method,
        headers: { origin: ORIGIN, 'content-type': 'application/json', 'idempotency-key': path, ...headers },
        ...(body ? { body: JSON.stringify(body) } : {}),
        signal: hangUp.signal,
      });
    // A refusal may be read, too.
    for (const [headers, status] of [
      [{ authorization: `Bearer ${token}` }, 200],
      [{}, 401],
    ] as const) {
      const answer = await call(headers);
      expect(answer.status).toBe(status);
      expect(answer.headers.get('access-control-allow-origin')).toBe(ORIGIN);
      expect(listed(answer.headers.get('access-control-expose-headers'))).toEqual(
        expect.arrayContaining(['posthorn-position', 'retry-after']),
      );
    }
    hangUp.abort();
  });

  it('is told from a page of another origin', async () => {
    const { status, headers } = await ask('ann', topics('a'), {
      headers: { origin: 'https://evil.example' },
    });
    expect(status).toBe(403);
    expect(headers.get('access-control-allow-origin')).not.toBe('https://evil.example');
  });
});
