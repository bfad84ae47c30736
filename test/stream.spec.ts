/** Event streams (docs/protocols/inthe-am.md, "Event stream"). */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { CURSOR_LIMIT, furthestOf, parseCursor, STREAMS } from '@posthorn/contracts';
import {
  rawPublish,
  startBrowser,
  startCluster,
  type TestBrowser,
  type TestCluster,
} from '@posthorn/testing';
import { call, refusedUpgrade } from './support/courier-client.js';
import { EventStreamClient, ReconnectingClient, type StreamOptions } from './support/event-source.js';
import { hangUpAtOnce } from './support/hang-up.js';
import { createTenant, eventually, seconds, type Tenant } from './support/tenant.js';

const ORIGIN = 'https://app.example';
const SERVICE = { role: 'service' };

/** Where examples/04-event-stream.html is. */
const pages = createServer((_, response) => {
  const html = readFileSync(new URL('../examples/04-event-stream.html', import.meta.url));
  response.setHeader('content-type', 'text/html; charset=utf-8').end(html);
});
let pagesUrl: string;
let cluster: TestCluster;
let acme: Tenant;

beforeAll(async () => {
  await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
  pagesUrl = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  cluster = await startCluster({
    replicas: { gateway: 2 },
    links: true,
    env: { HEARTBEAT: '1s', DRAIN_BUDGET: '2s', STREAM_LIMIT: '4', ALLOWED_ORIGINS: `${ORIGIN},${pagesUrl}` },
  });
  acme = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  pages.close();
  pages.closeAllConnections();
});

const urlAt = (gateway: number, path: string) => `${cluster.gatewayUrls[gateway]}${path}`;
const topicsPath = (topics: readonly string[]) => `/v1/stream?topics=${encodeURIComponent(topics.join(','))}`;

async function keyOf(sub: string, claims: object = {}, tenant = acme): Promise<string> {
  const { body } = await (await tenant.as(sub, claims))('GET', '/v1/sign?for=stream');
  return body.key;
}

/** A stream of a user at a gateway, by its token. */
async function open(
  sub: string,
  path = '/v1/stream',
  {
    claims = {},
    gateway = 0,
    tenant = acme,
    ...options
  }: StreamOptions & {
    claims?: object;
    gateway?: number;
    tenant?: Tenant;
  } = {},
): Promise<EventStreamClient> {
  const authorization = `Bearer ${await tenant.token(sub, claims)}`;
  return EventStreamClient.open(urlAt(gateway, path), {
    ...options,
    headers: { authorization, ...options.headers },
  });
}

async function publish(topic: string, message: object, { service }: Tenant = acme): Promise<void> {
  const { status, body } = await service('POST', '/v1/hook', { topic, action: 'publish', message });
  if (status !== 200) throw new Error(`${topic}: ${status} ${JSON.stringify(body)}`);
}

async function broadcast(message: object): Promise<void> {
  const { status } = await acme.service('POST', '/v1/hook', { action: 'broadcast', message });
  expect(status).toBe(200);
}

/** Resolves once a user may have as many streams as anybody. */
async function mayOpen(sub: string): Promise<void> {
  await eventually(async () => {
    const streams = await Promise.all(upTo(4).map(() => open(sub)));
    const statuses = streams.map(({ status }) => status);
    for (const stream of streams) await stream[Symbol.asyncDispose]();
    return statuses.every((status) => status === 200) || undefined;
  });
}

async function metric(name: string, gateway = 0): Promise<number> {
  const text = await (await fetch(urlAt(gateway, '/metrics'))).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`posthorn_${name}`));
  return Number(line?.split(' ').at(-1));
}

/** Drops what the stream of the event store holds before a cursor. */
async function purgeBefore(cursor: string): Promise<void> {
  const nc = await connect({ servers: cluster.natsUrl });
  const jsm = await jetstreamManager(nc);
  await jsm.streams.purge(STREAMS.global.name, { seq: furthestOf(parseCursor(cursor)!) });
  await nc.close();
}

/** The numbers of a topic's events, in the order in which they came. */
const numbers = (events: readonly { name: string; data: string }[], name: string) =>
  events.filter((event) => event.name === name).map(({ data }) => JSON.parse(data).n as number);
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

/** Publishes {n: 1}, {n: 2}, … to each of the topics, until stopped. */
class Load {
  readonly counts = new Map<string, number>();
  readonly #running: Promise<void>;
  #stopped = false;

  constructor(topics: readonly string[], pause: number, tenant = acme, most = Number.POSITIVE_INFINITY) {
    this.#running = this.#run(topics, pause, tenant, most);
  }

  get total(): number {
    return [...this.counts.values()].reduce((sum, n) => sum + n, 0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  get done(): Promise<void> {
    return this.#running;
  }

  async #run(topics: readonly string[], pause: number, tenant: Tenant, most: number): Promise<void> {
    const pubsub = tenant.pubsub();
    for (let n = 1; n <= most && !this.#stopped; n++) {
      for (let i = 0; i < topics.length; i += 64) {
        await Promise.all(
          topics.slice(i, i + 64).map(async (topic) => {
            await pubsub.global.topic(topic).publish({ n });
            this.counts.set(topic, n);
          }),
        );
      }
      await sleep(pause);
    }
    await pubsub.close();
  }
}

describe('an event stream', () => {
  it('brings what concerns its user, under the names of the topics', async () => {
    await using alice = await open('u1', '/v1/stream', { claims: { username: 'alice.smith' } });
    expect(alice.headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
      connection: 'keep-alive',
    });
    const general = { title: 'Maintenance', message: 'at\nnoon', system: true };
    const personal = { username: 'alice.smith', title: 'Hello', message: 'a\u2028b' };
    await publish('__general__', general);
    await publish('personal.alice.smith', personal);
    await publish('personal.bob', { ...personal, username: 'bob' });
    await broadcast({ all: 1 });
    const events = await alice.count(3);
    expect(events.map(({ name, data }) => [name, JSON.parse(data)])).toEqual([
      ['__general__', general],
      ['personal', personal],
      ['broadcast', { all: 1 }],
    ]);
    for (const { id } of events) expect(parseCursor(id)).toBeDefined();
    expect(alice.retry).toBeGreaterThanOrEqual(1_000);
  });

  it('shows signs of life, and a short cursor with them', async () => {
    await using ann = await open('ann', topicsPath(['quiet/a', 'quiet/b']));
    await publish('quiet/a', { n: 1 });
    await publish('quiet/b', { n: 1 });
    await ann.count(2);
    const comments = ann.comments;
    await ann.until(() => ann.comments > comments + 1);
    await ann.until(() => !ann.lastEventId.includes('~'), 25_000);
    await using again = await open('ann', topicsPath(['quiet/a', 'quiet/b']), {
      gateway: 1,
      lastEventId: ann.lastEventId,
    });
    await publish('quiet/a', { n: 2 });
    await again.count(1);
    expect(again.messages('quiet/a')).toEqual([{ n: 2 }]);
  }, 40_000);

  it('goes on at another gateway without loss or repeat, with broadcasts and ephemeral events', async () => {
    const path = topicsPath(['resume/a', 'resume/b', 'resume/live']);
    await acme.service('POST', '/v1/topic', { topic: 'resume/live', durable: false });
    let last: string;
    {
      await using ann = await open('ann', path);
      last = ann.lastEventId;
      expect(last).not.toBe('');
    }
    await publish('resume/a', { n: 1 });
    await broadcast({ n: 1 });
    await publish('resume/b', { n: 1 });
    await publish('resume/a', { n: 2 });
    await using again = await open('ann', path, { gateway: 1, lastEventId: last });
    await again.count(4);
    await publish('resume/live', { n: 1 });
    await again.count(5);
    expect(again.events.map(({ name }) => name)).toEqual([
      'resume/a',
      'broadcast',
      'resume/b',
      'resume/a',
      'resume/live',
    ]);
    expect(again.events[4]!.id).toBe(again.events[3]!.id);
    for (const [i, { id }] of again.events.slice(0, 4).entries()) {
      await using third = await open('ann', `${path}&since=${encodeURIComponent(id)}`, { gateway: i % 2 });
      await third.count(3 - i);
      await publish('resume/b', { n: i + 2 });
      await third.count(4 - i + i);
      expect(third.events.map(({ name }) => name)).toEqual([
        ...again.events.slice(i + 1, 4).map(({ name }) => name),
        ...Array.from({ length: i + 1 }, () => 'resume/b'),
      ]);
    }
  });

  it('says first where history was lost', async () => {
    await publish('lost', { n: 1 });
    for (const lastEventId of ['nonsense', 'abcz1-5', `abcz1-0~1.-.lost`, '9'.repeat(100)]) {
      await using ann = await open('ann', topicsPath(['lost']), { lastEventId });
      await ann.until(() => ann.events.some(({ name }) => name === 'lost'));
      const [first] = ann.events;
      expect(first).toMatchObject({ name: 'recovered', data: 'false' });
      expect(numbers(ann.events, 'lost')).toEqual([1]);
      expect(ann.messages('recovered')).toEqual([false]);
    }
    await using before = await open('ann', topicsPath(['lost/a', 'lost/b']));
    const { lastEventId } = before;
    for (const n of upTo(3)) {
      await publish('lost/a', { n });
      await publish('lost/b', { n });
    }
    await before.count(6);
    await purgeBefore(before.events[2]!.id);
    await using after = await open('ann', topicsPath(['lost/a', 'lost/b']), { gateway: 1, lastEventId });
    await after.count(5);
    expect(after.events[0]).toMatchObject({ name: 'recovered', data: 'false' });
    expect(after.events.slice(1).map(({ name, data }) => [name, JSON.parse(data).n])).toEqual([
      ['lost/a', 2],
      ['lost/b', 2],
      ['lost/a', 3],
      ['lost/b', 3],
    ]);
  });

  it('judges topics as a socket does', async () => {
    const asked = async (query: string, claims: object = {}) => {
      await using stream = await open('ann', `/v1/stream${query}`, { claims });
      return { status: stream.status, body: stream.status === 200 ? undefined : stream };
    };
    const refusal = async (query: string) => {
      await using stream = await open('ann', `/v1/stream${query}`);
      await stream.end();
      return { status: stream.status, ...JSON.parse(stream.body) };
    };
    expect(await refusal('?topics=news,personal.bob')).toMatchObject({
      status: 403,
      code: 'forbidden',
      detail: expect.stringContaining('personal.bob'),
      errors: [{ path: '/topics/1' }],
    });
    for (const topics of ['community:*:invite', 'login:failure', 'user:bob', 'sync.>']) {
      expect(await refusal(`?topics=${topics}`)).toMatchObject({ status: 403, code: 'forbidden' });
    }
    for (const query of [
      '?topics=',
      '?topics=a,,b',
      '?topics=a%20b',
      '?since=nonsense',
      '?since=a&since=b',
    ]) {
      expect(await refusal(query)).toMatchObject({ status: 422, code: 'request_invalid' });
    }
    const many = upTo(129).map((n) => `many/${n}`);
    expect(await refusal(`?topics=${many.join(',')}`)).toMatchObject({
      status: 429,
      code: 'subscription_limit',
    });
    expect((await asked(`?topics=${many.slice(1).join(',')},${many[1]}`)).status).toBe(200);
    expect((await asked('?topics=sync.>', SERVICE)).status).toBe(200);
    expect((await asked('?topics=news/*', { permissions: { subscribe: ['news/*'] } })).status).toBe(200);
  });

  it('gives a template of the caller by its name alone, and its own notifications', async () => {
    await using ann = await open('ann', '/v1/stream?topics=personal,user:ann,usernotification:created', {
      claims: { username: 'a,n n' },
    });
    await publish('personal.a,n n', { username: 'a,n n', title: '', message: 'for her' });
    await publish('user:ann', { type: 'hello' });
    await ann.count(2);
    expect(ann.events.map(({ name }) => name)).toEqual(['personal', 'user']);
  });

  it('takes a name as it is, which may hold a comma', async () => {
    const path = `/v1/stream?topic=${encodeURIComponent('a,b')}&topic=c,d&topics=e,f&topic=personal`;
    await using ann = await open('ann', path, { claims: { username: 'ann' } });
    await publish('personal.ann', { username: 'ann', title: '', message: '' });
    for (const name of ['a', 'a,b', 'c,d', 'e,f', 'e', 'f']) await publish(name, {});
    await ann.count(5);
    expect(ann.events.map(({ name }) => name)).toEqual(['personal', 'a,b', 'c,d', 'e', 'f']);
    await using refused = await open('ann', '/v1/stream?topics=a,b&topic=c&topic=personal.bob');
    await refused.end();
    expect(JSON.parse(refused.body)).toMatchObject({ status: 403, errors: [{ path: '/topic/1' }] });
  });

  it('delivers once what several of its topics take', async () => {
    await using svc = await open('svc', topicsPath(['over.>', 'over.a.*', 'over.*.b', 'over/a/b']), {
      claims: SERVICE,
    });
    await acme.service('POST', '/v1/topic', { topic: 'over/live/b', durable: false });
    for (let n = 1; n <= 5; n++) {
      await publish('over/a/b', { n });
      await publish('over/live/b', { n });
    }
    await publish('over/end', {});
    await svc.until(() => svc.events.some(({ name }) => name === 'over/end'));
    expect(numbers(svc.events, 'over/a/b')).toEqual(upTo(5));
    expect(numbers(svc.events, 'over/live/b')).toEqual(upTo(5));
  });

  it('takes any name and payload as it is', async () => {
    const room = { event_id: 'e', session_id: 's' };
    const names = ['room/session/s/two\nlines\r', 'error', 'recovered', 'naïve/☃', 'a:b.c'];
    await using ann = await open('ann', `/v1/stream?topics=${names.map(encodeURIComponent).join(',')}`, {
      claims: { room },
    });
    for (const name of names) await publish(name, { name });
    await ann.count(names.length);
    expect(ann.events.map(({ name }) => name)).toEqual([
      'room/session/s/two%0Alines%0D',
      '/error',
      '/recovered',
      'naïve/☃',
      'a:b.c',
    ]);
    expect(ann.events.map(({ data }) => JSON.parse(data).name)).toEqual(names);
    await rawPublish(
      cluster.nats,
      'ph.acme.global.-.error',
      'NATS/1.0\r\n\r\n',
      '{\r\n "n" :\n9007199254740993 }\n',
    );
    await ann.count(names.length + 1);
    expect(ann.events.at(-1)).toMatchObject({ name: '/error', data: '{   "n" : 9007199254740993 } ' });
  });
});

describe('who may open a stream', () => {
  it('is known by a key that opens nothing else, and is in no log', async () => {
    const key = await keyOf('ann');
    const path = `/v1/stream?topics=news&token=${key}`;
    for (const gateway of [0, 1]) {
      await using ann = await EventStreamClient.open(urlAt(gateway, path));
      expect(ann.status).toBe(200);
      await publish('news', { n: 1 });
      await ann.count(1);
    }
    expect(await refusedUpgrade(`${urlAt(0, `/ws?token=${key}`).replace('http', 'ws')}`)).toBe(401);
    const socketKey = (await (await acme.as('ann'))('GET', '/v1/sign')).body.key;
    for (const bad of ['', 'nonsense', `${key}x`, socketKey]) {
      const { status, body } = await call(urlAt(0, ''), undefined, 'GET', `/v1/stream?token=${bad}`);
      expect({ status, code: body.code }).toEqual({ status: 401, code: 'unauthorized' });
      expect((await call(urlAt(0, ''), undefined, 'GET', `/status/${bad}`)).status).toBe(401);
    }
    expect((await call(urlAt(0, ''), undefined, 'GET', '/v1/stream')).status).toBe(401);
    for (const gateway of [0, 1]) {
      expect(cluster.app('gateway', gateway).logTail(100_000)).not.toContain(key.slice(0, 100));
    }
  });

  it('is kept by the list of origins', async () => {
    const url = urlAt(0, `/v1/stream?token=${await keyOf('ann')}`);
    await using mine = await EventStreamClient.open(url, { headers: { origin: ORIGIN } });
    expect(mine.headers).toMatchObject({ 'access-control-allow-origin': ORIGIN });
    await using other = await EventStreamClient.open(url, { headers: { origin: 'https://evil.example' } });
    expect(other.status).toBe(403);
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: { origin: ORIGIN, 'access-control-request-method': 'GET' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe(ORIGIN);
    const head = await fetch(url, { method: 'HEAD' });
    expect(head.status).toBe(200);
    expect(head.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect((await fetch(url, { method: 'PUT' })).status).toBe(404);
  });

  it('is let go when the token is revoked or ends, and not let in again', async () => {
    const admin = await acme.as('root', { role: 'admin' });
    const key = await keyOf('rita', { jti: 'rita-1' });
    const url = urlAt(0, `/v1/stream?token=${key}`);
    await using rita = await EventStreamClient.open(url);
    expect((await admin('POST', '/v1/revocations', { tokenId: 'rita-1' })).status).toBe(200);
    await rita.end();
    await using again = await EventStreamClient.open(url);
    expect(again.status).toBe(401);

    const brief = urlAt(1, `/v1/stream?token=${await keyOf('eve', { exp: seconds() + 3 })}`);
    await using eve = await EventStreamClient.open(brief);
    expect(eve.status).toBe(200);
    await eve.end();
    await using late = await EventStreamClient.open(brief);
    expect(late.status).toBe(401);
    expect(await metric('closes_total{reason="tokenRevoked"')).toBe(1);
    expect(await metric('closes_total{reason="tokenExpired"', 1)).toBe(1);
  });

  it('is not kept for clients that hang up before they are known', async () => {
    const { hostname, port } = new URL(urlAt(0, '/'));
    const authorization = `Authorization: Bearer ${await acme.token('lee')}`;
    const request = `GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n${authorization}\r\n\r\n`;
    await hangUpAtOnce(hostname, Number(port), request);
    await mayOpen('lee');
  });

  it('is not kept where it waited behind another answer of its connection', async () => {
    const { hostname, port } = new URL(urlAt(0, '/'));
    const authorization = `Authorization: Bearer ${await acme.token('liv')}`;
    const areOpen = async (count: number) => ((await metric('streams{')) === count ? true : undefined);
    await eventually(() => areOpen(0));
    const socket = connectTcp(Number(port), hostname);
    socket.write(`GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n${authorization}\r\n\r\n`.repeat(4));
    await eventually(() => areOpen(4));
    socket.destroy();
    await mayOpen('liv');
  });

  it('may have so many open at one gateway', async () => {
    const streams = await Promise.all(upTo(4).map(() => open('lim')));
    await using fifth = await open('lim');
    await fifth.end();
    expect({ status: fifth.status, ...JSON.parse(fifth.body) }).toMatchObject({
      status: 429,
      code: 'subscription_limit',
    });
    await using elsewhere = await open('lim', '/v1/stream', { gateway: 1 });
    expect(elsewhere.status).toBe(200);
    const open4 = await metric('streams{');
    expect(open4).toBeGreaterThanOrEqual(4);
    for (const stream of streams) await stream[Symbol.asyncDispose]();
    await eventually(async () => (await metric('streams{')) <= open4 - 4 || undefined);
    await using next = await open('lim');
    expect(next.status).toBe(200);
  });
});

describe('under load', () => {
  it('a stream loses and repeats nothing when its gateway is killed', async () => {
    const topics = upTo(20).map((n) => `killed/${n}`);
    const key = await keyOf('kim');
    const urls = [0, 1].map((gateway) => urlAt(gateway, `${topicsPath(topics)}&token=${key}`));
    const clients = upTo(3).map((n) => new ReconnectingClient(n % 2 ? urls : [...urls].reverse()));
    await eventually(async () => clients.every(({ connections }) => connections > 0) || undefined);
    await sleep(500);
    const load = new Load(topics, 20);
    for (const gateway of [0, 1]) {
      await sleep(500);
      await cluster.app('gateway', gateway).kill();
      for (const client of clients) client.cut();
      await cluster.app('gateway', gateway).start();
    }
    for (let n = 0; n < 10; n++) {
      await sleep(60);
      for (const client of clients) client.cut();
    }
    await load.stop();
    await eventually(async () => clients.every(({ received }) => received >= load.total) || undefined);
    for (const client of clients) {
      await client[Symbol.asyncDispose]();
      for (const topic of topics)
        expect(numbers(client.events, topic)).toEqual(upTo(load.counts.get(topic)!));
      expect(client.events).toHaveLength(load.total);
    }
  }, 120_000);

  it('a stream of 128 topics, each in motion, can go on from any of its ids', async () => {
    const topics = upTo(128).map((n) => `wide/${'x'.repeat(40)}/${n}`);
    await using ann = await open('ann', topicsPath(topics));
    const load = new Load(topics, 0, acme, 8);
    await load.done;
    await ann.count(128 * 8);
    for (const topic of topics) expect(numbers(ann.events, topic)).toEqual(upTo(8));
    for (const { id } of ann.events) expect(id.length).toBeLessThanOrEqual(CURSOR_LIMIT.length);
    const some = [0, 100, 333, 640, 1_000, 1_022];
    for (const [i, at] of some.entries()) {
      await using again = await open('ann', topicsPath(topics), {
        gateway: i % 2,
        lastEventId: ann.events[at]!.id,
      });
      await again.count(1_023 - at);
      const before = ann.events.slice(0, at + 1);
      for (const topic of topics) {
        expect(numbers([...before, ...again.events], topic)).toEqual(upTo(8));
      }
    }
  }, 60_000);

  it('a pattern of 300 topics keeps its cursor within bounds, and can go on from any of its ids', async () => {
    const topics = upTo(300).map((n) => `pattern/${'y'.repeat(30)}/${n}`);
    const options = { claims: SERVICE };
    await using svc = await open('svc', topicsPath(['pattern.>', 'other']), options);
    const load = new Load(topics, 0, acme, 5);
    await load.done;
    await svc.count(1_500);
    for (const topic of topics) expect(numbers(svc.events, topic)).toEqual(upTo(5));
    for (const { id } of svc.events) {
      expect(id.length).toBeLessThanOrEqual(CURSOR_LIMIT.length);
      expect(parseCursor(id)!.beyond?.size ?? 0).toBeLessThanOrEqual(CURSOR_LIMIT.topics);
    }
    for (const [i, at] of [0, 77, 500, 1_200, 1_498].entries()) {
      await using again = await open('svc', topicsPath(['pattern.>', 'other']), {
        ...options,
        gateway: i % 2,
        lastEventId: svc.events[at]!.id,
      });
      await again.count(1_499 - at);
      const all = [...svc.events.slice(0, at + 1), ...again.events];
      for (const topic of topics) expect(numbers(all, topic)).toEqual(upTo(5));
    }
  }, 60_000);

  it('a history of many pages comes in order, whoever reads how slowly', async () => {
    const topics = upTo(12).map((n) => `pages/${n}`);
    let last: string;
    {
      await using ann = await open('ann', topicsPath(topics));
      last = ann.lastEventId;
    }
    const load = new Load(topics, 0, acme, 300);
    await load.done;
    await using ann = await open('ann', topicsPath(topics), { gateway: 1, lastEventId: last });
    ann.response.pause();
    await sleep(300);
    ann.response.resume();
    await ann.count(3_600, 60_000);
    for (const topic of topics) expect(numbers(ann.events, topic)).toEqual(upTo(300));
  }, 120_000);

  it('a client that does not read is given up, and nobody else notices', async () => {
    const slow = 'closes_total{reason="slowConsumer"';
    const before = await metric(slow);
    await using deaf = await open('deaf', topicsPath(['flood']));
    await using ann = await open('ann', topicsPath(['flood']));
    deaf.response.pause();
    deaf.response.socket.pause();
    const pad = 'x'.repeat(500_000);
    let sent = 0;
    while ((await metric(slow)) === before) {
      expect(++sent).toBeLessThan(100);
      await publish('flood', { n: sent, pad });
    }
    await ann.count(sent);
    expect(numbers(ann.events, 'flood')).toEqual(upTo(sent));
    deaf.response.socket.resume();
    deaf.response.resume();
    await deaf.end();
    const read = deaf.events.length;
    await using again = await open('deaf', topicsPath(['flood']), { lastEventId: deaf.lastEventId });
    await again.count(sent - read);
    expect(numbers([...deaf.events, ...again.events], 'flood')).toEqual(upTo(sent));
  }, 60_000);
});

describe('a gateway that goes away', () => {
  it('sends its streams elsewhere, each after a while of its own', async () => {
    const streams = await Promise.all(upTo(12).map((n) => open(`drain-${n}`, '/v1/stream', { gateway: 1 })));
    const first = streams.map(({ retry }) => retry);
    const gateway = cluster.app('gateway', 1);
    const stopped = gateway.stop();
    await Promise.all(streams.map((stream) => stream.end()));
    const after = streams.map(({ retry }) => retry);
    expect(new Set(after).size).toBeGreaterThan(1);
    expect(after).not.toEqual(first);
    for (const retry of after) expect(retry).toBeLessThanOrEqual(2_000);
    await stopped;
    await gateway.start();
  }, 30_000);

  it('has browsers come again while the event store is away: any status but 200 would be for ever', async () => {
    const authorization = `Bearer ${await acme.token('ann')}`;
    const gateway = cluster.app('gateway', 1);
    const link = cluster.natsLink(gateway);
    link.cut();
    await gateway.unready();
    try {
      await using browser = await EventStreamClient.open(urlAt(1, '/v1/stream'), {
        headers: { authorization },
      });
      await browser.end();
      expect(browser.status).toBe(200);
      expect(browser.retry).toBeGreaterThanOrEqual(1_000);
      expect(browser.lastEventId).toBe('');
      const { status } = await fetch(urlAt(1, '/v1/stream'), { headers: { authorization } });
      expect(status).toBe(503);
    } finally {
      link.restore();
    }
    await gateway.ready();
  }, 60_000);
});

describe('the status page', () => {
  const username = 'alice';
  const sync = (head: string) => ({ username, debounce_id: 'd', start: 'aa', head });
  const entry = { username, md5hash: 'm', last_seen: null, created: null, count: 1 };

  it('hears the names that it knows', async () => {
    const key = await keyOf('u7', { username });
    await using page = await EventStreamClient.open(urlAt(0, `/status/${key}?head=aa`));
    expect(page.headers['content-type']).toBe('text/event-stream; charset=utf-8');
    const task = '7d3f8a4e-2b1c-4d5e-9f60-718293a4b5c6';
    await publish('changed_task.alice', {
      username,
      start: 'aa',
      head: 'bb',
      task_id: task,
      task_data: {},
      changes: {},
    });
    await publish('local_sync.alice', sync('aa'));
    await publish('local_sync.alice', sync('bb'));
    await publish('log_message.alice', { ...entry, error: false, silent: false, message: 'fine' });
    await publish('log_message.alice', { ...entry, error: true, silent: true, message: 'hush' });
    await publish('log_message.alice', { ...entry, error: true, silent: false, message: 'two\nlines' });
    await publish('personal.alice', { username, title: 't', message: 'm' });
    await publish('__general__', { title: 't', message: 'm', system: false });
    await publish('incoming_mail.alice', { username, message_id: 1, subject: 's', accepted: true });
    await publish('incoming_trello_change.alice', { action: { id: '1', type: 'x' }, model: { id: '2' } });
    const told = () => page.events.filter(({ name }) => name !== 'heartbeat');
    await page.until(() => told().length === 9);
    expect(told().map(({ name, data }) => [name, data.startsWith('{') ? JSON.parse(data) : data])).toEqual([
      ['task_changed', task],
      ['local_sync', sync('aa')],
      ['head_changed', 'bb'],
      ['local_sync', sync('bb')],
      ['error_logged', 'two\nlines'],
      ['personal_announcement', { username, title: 't', message: 'm' }],
      ['public_announcement', { title: 't', message: 'm', system: false }],
      ['incoming_mail', { username, message_id: 1, subject: 's', accepted: true }],
      ['incoming_trello_change', { action: { id: '1', type: 'x' }, model: { id: '2' } }],
    ]);
    await page.until(() => page.events.some(({ name }) => name === 'heartbeat'));
    expect(page.comments).toBe(0);
  });

  it('goes on where it was, and knows the head that it was told', async () => {
    const path = `/status/${await keyOf('u7', { username })}?head=aa`;
    await using page = await EventStreamClient.open(urlAt(0, path));
    await publish('local_sync.alice', sync('cc'));
    await page.until(() => page.events.some(({ name }) => name === 'local_sync'));
    const ids = page.events.filter(({ name }) => name !== 'heartbeat').map(({ name, id }) => [name, id]);
    expect(ids.map(([name]) => name)).toEqual(['head_changed', 'local_sync']);
    await publish('local_sync.alice', sync('cc'));
    // Cut between the two that one event became, and behind them.
    for (const [[, id], rest] of [
      [ids[0]!, 2],
      [ids[1]!, 1],
    ] as const) {
      await using again = await EventStreamClient.open(urlAt(1, path), { lastEventId: id! });
      await again.count(rest);
      expect(again.events.map(({ name }) => name)).toEqual(Array.from({ length: rest }, () => 'local_sync'));
    }
    await using lost = await EventStreamClient.open(urlAt(1, path), { lastEventId: 'abcz1-5@cc' });
    await lost.count(2);
    expect(lost.events[0]).toMatchObject({ name: 'recovered', data: 'false' });
  });
});

describe('the example page, in a browser', () => {
  let browser: TestBrowser;

  beforeAll(async () => {
    browser = await startBrowser();
  }, 60_000);
  afterAll(async () => {
    await browser?.[Symbol.asyncDispose]();
  });

  const odd = { username: 'alice', title: '<img src=x onerror="document.title=1">', message: '</pre><b>' };

  it('shows what comes, as text, under whatever name it was asked for', async () => {
    const page = await browser.newPage();
    const failures: string[] = [];
    page.on('pageerror', ({ message }) => failures.push(message));
    const topics = ['personal.alice', 'error', 'open/a', 'naïve/☃', 'news'];
    const query = new URLSearchParams({
      url: urlAt(0, ''),
      key: await keyOf('u8', { username: 'alice' }),
      topics: topics.join(','),
    });
    await page.goto(`${pagesUrl}/?${query}`);
    await page.locator('[data-state=open]').waitFor();
    expect(page.url()).not.toContain('key');

    await publish('personal.alice', odd);
    for (const topic of topics.slice(1)) await publish(topic, { topic });
    await broadcast({ all: 1 });
    const items = page.locator('#events li');
    await items.nth(5).waitFor();
    const names = await items
      .locator('p')
      .evaluateAll((all) => all.map(({ firstChild }) => firstChild?.textContent));
    expect(names.reverse()).toEqual(['personal', '/error', 'open/a', 'naïve/☃', 'news', 'broadcast']);
    expect(JSON.parse((await items.last().locator('pre').textContent())!)).toEqual(odd);
    expect(await page.locator('#events img, #events b').count()).toBe(0);
    expect(await page.title()).toBe('Event stream');
    expect(failures).toEqual([]);
  });

  it('asks for a key with a token, says what is wrong, and comes again by itself', async () => {
    const page = await browser.newPage();
    await page.goto(pagesUrl);
    const follow = async (token: string) => {
      await page.getByLabel('Gateway').fill(urlAt(1, ''));
      await page.getByLabel('Token').fill(token);
      await page.getByRole('button').click();
    };
    const state = page.locator('#state');
    await follow('nonsense');
    await page.locator('[data-state=closed]').waitFor();
    expect(await state.textContent()).not.toBe('');
    await follow(await acme.token('u8', { username: 'alice' }));
    await page.locator('[data-state=open]').waitFor();
    const gateway = cluster.app('gateway', 1);
    const stopped = gateway.stop();
    await page.locator('[data-state=connecting]').waitFor();
    await stopped;
    await publish('personal.alice', { username: 'alice', title: 'while away', message: '' });
    await gateway.start();
    await page.getByText('while away').waitFor();
    expect(await page.locator('#events li').count()).toBe(1);
  }, 60_000);
});
