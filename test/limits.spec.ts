/** What one user may hold and ask at one gateway, and who is not served at all. */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { AUTH_CALLS, REGISTRY_CALLS } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { type Answer, CourierSocket, call, refusedUpgrade } from './support/courier-client.js';
import { EventStreamClient } from './support/event-source.js';
import { FrameStreamClient } from './support/frame-stream.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

const CONNECTIONS = 5;
const STREAMS = 3;
const POLLS = 10;
const BURST = 40;

let cluster: TestCluster;
let acme: Tenant;
let url: string;

beforeAll(async () => {
  cluster = await startCluster({
    replicas: { gateway: 2 },
    env: {
      CONNECTION_LIMIT: String(CONNECTIONS),
      STREAM_LIMIT: String(STREAMS),
      POLL_LIMIT: String(POLLS),
      // Slow enough for nobody to get a second one back while a test lasts.
      POLL_RATE: '1',
      POLL_BURST: String(BURST),
      BUS_TIMEOUT: '10s',
    },
  });
  acme = await createTenant(cluster, 'acme');
  url = cluster.gatewayUrls[0]!;
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split('\n').find((candidate) => candidate.startsWith(`posthorn_${name}{`));
  return Number(line?.split(' ').at(-1));
}

/** The answer to an upgrade of a WebSocket with some headers of one's own. */
async function answerToUpgrade(address: URL, headers: Record<string, string>): Promise<number> {
  const { hostname, port, pathname, search } = address;
  const asked = request({
    hostname,
    port,
    path: pathname + search,
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
      ...headers,
    },
  });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  response.resume();
  return response.statusCode ?? 0;
}

describe('the connections of one user at one gateway', () => {
  const socketUrl = async (sub: string, gateway = 0, claims: object = {}) => {
    const base = cluster.gatewayUrls[gateway]!;
    const { body } = await call(base, await acme.token(sub, claims), 'GET', '/v1/sign');
    return `${base.replace('http', 'ws')}/ws?token=${body.key}`;
  };
  const socket = async (sub: string, gateway = 0) => new CourierSocket(await socketUrl(sub, gateway));
  const stream = async (sub: string) =>
    EventStreamClient.open(`${url}/v1/stream`, {
      headers: { authorization: `Bearer ${await acme.token(sub)}` },
    });
  const frames = async (sub: string) =>
    FrameStreamClient.open(url, await acme.token(sub), { subscriptions: [] });

  it('are so many sockets and streams together: one more is refused, one that ends frees its place', async () => {
    await using first = await stream('ann');
    await using second = await frames('ann');
    const sockets = [];
    for (let n = 2; n < CONNECTIONS; n++) {
      sockets.push(await socket('ann'));
      await sockets.at(-1)!.next('welcome');
    }
    expect(await refusedUpgrade(await socketUrl('ann'))).toBe(429);
    await using refused = await stream('ann');
    await refused.end();
    expect(JSON.parse(refused.body)).toMatchObject({ status: 429, code: 'subscription_limit' });
    await using also = await frames('ann');
    expect(also.body).toMatchObject({ status: 429, code: 'subscription_limit' });

    await using elsewhere = await socket('ann', 1);
    await elsewhere.next('welcome');
    await using another = await socket('bob');
    await another.next('welcome');

    expect([first.status, second.status]).toEqual([200, 200]);
    const [last, ...rest] = sockets;
    await last![Symbol.asyncDispose]();
    await eventually(async () => {
      const again = await socket('ann');
      rest.push(again);
      await Promise.race([again.next('welcome').catch(() => {}), again.end()]);
      return again.frames.length > 0 || undefined;
    });
    for (const each of rest) await each[Symbol.asyncDispose]();
  });

  it('may be fewer streams than that', async () => {
    const streams = [];
    for (let n = 0; n < STREAMS; n++) streams.push(await (n % 2 ? stream('sam') : frames('sam')));
    expect(streams.map(({ status }) => status)).toEqual(upTo(STREAMS).map(() => 200));
    await using refused = await frames('sam');
    expect(refused.body).toMatchObject({
      code: 'subscription_limit',
      detail: 'A user may have 3 event streams open',
    });
    await using allowed = await socket('sam');
    await allowed.next('welcome');
    for (const each of streams) await each[Symbol.asyncDispose]();
    await eventually(async () => {
      await using next = await frames('sam');
      return next.status === 200 || undefined;
    });
  });

  it('leave no place behind whose upgrade came to nothing', async () => {
    const address = new URL(await socketUrl('eve'));
    for (let n = 0; n <= CONNECTIONS; n++) {
      // Refused behind the check of the key.
      expect(await answerToUpgrade(address, { 'sec-websocket-version': '7' })).toBe(422);
    }
    await using one = await socket('eve');
    await one.next('welcome');
  });

  it('are not counted where no token says whose they are', async () => {
    const token = await cluster.token({
      aud: 'acme',
      sub: undefined,
      exp: Math.floor(Date.now() / 1_000) + 600,
    });
    const { body } = await call(url, token, 'GET', '/v1/sign');
    const sockets = upTo(CONNECTIONS + 1).map(() => new CourierSocket(body.url));
    for (const each of sockets) await each.next('welcome');
    for (const each of sockets) await each[Symbol.asyncDispose]();
  });
});

describe('the polls of one user at one gateway', () => {
  const poll = async (sub: string, channels: readonly string[] = [], signal?: AbortSignal) =>
    call(url, await acme.token(sub), 'POST', '/acme/bus', { channels }, {}, signal);
  const waiting = (count: number) =>
    eventually(async () => ((await metric('polls')) === count ? true : undefined));
  const refusal = ({ status, body }: Answer) => [status, body.code];

  it('are so many that wait: one more is refused, one that ends frees its place', async () => {
    const hangUp = new AbortController();
    const one = new AbortController();
    const polls = upTo(POLLS).map((n) => poll('pam', [], n === 1 ? one.signal : hangUp.signal));
    await waiting(POLLS);
    expect(refusal(await poll('pam'))).toEqual([429, 'subscription_limit']);
    const another = poll('pat', [], hangUp.signal);
    await waiting(POLLS + 1);
    one.abort();
    await waiting(POLLS);
    const next = poll('pam', [], hangUp.signal);
    await waiting(POLLS + 1);
    hangUp.abort();
    await Promise.allSettled([...polls, another, next]);
    await waiting(0);
  });

  it('have 1,024 different channels together', async () => {
    const hangUp = new AbortController();
    // With the user's own that every poll has.
    const lists = upTo(8).map((i) => upTo(i === 8 ? 127 : 128).map((n) => `c/${i}/${n}`));
    const polls = lists.map((channels) => poll('pru', channels, hangUp.signal));
    await waiting(8);
    expect(refusal(await poll('pru', ['c/one-more']))).toEqual([429, 'subscription_limit']);
    const again = poll('pru', lists[0], hangUp.signal);
    await waiting(9);
    hangUp.abort();
    await Promise.allSettled([...polls, again]);
    await waiting(0);
    const after = new AbortController();
    const next = poll('pru', ['c/one-more'], after.signal);
    await waiting(1);
    after.abort();
    await Promise.allSettled([next]);
    await waiting(0);
  });

  it('come so fast, and no faster', async () => {
    const ask = async (token: string) => call(url, token, 'POST', '/acme/bus', {});
    const [user, service] = [await acme.token('rob'), await acme.token('svc', { role: 'service' })];
    const answers = await Promise.all(upTo(BURST + 20).map(() => ask(user)));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThanOrEqual(5);
    expect(answers.filter(({ status }) => status === 422).length).toBeGreaterThanOrEqual(BURST);
    for (const { headers, body } of refused) {
      expect(body.code).toBe('rate_limited');
      expect(Number(headers.get('retry-after'))).toBe(1);
    }
    expect((await ask(await acme.token('ron'))).status).toBe(422);
    const unlimited = await Promise.all(upTo(BURST + 20).map(() => ask(service)));
    expect(new Set(unlimited.map(({ status }) => status))).toEqual(new Set([422]));
  });
});

describe('a poll or a stream', () => {
  it('is not served where its token is revoked while its audience is asked for', async () => {
    const nc = await connect({ servers: cluster.natsUrl });
    const token = await cluster.token({
      aud: 'late',
      sub: 'ann',
      jti: 'late-1',
      exp: Date.now() / 1_000 + 600,
    });
    const registry = cluster.app('registry');
    registry.freeze();
    try {
      // In the registry's place, which would answer at once.
      const lookups = nc.subscribe(REGISTRY_CALLS.lookup);
      const stream = EventStreamClient.open(`${url}/v1/stream?topics=a`, {
        headers: { authorization: `Bearer ${token}` },
      });
      const answers = [
        call(url, token, 'POST', '/late/bus', { channels: [] }),
        call(url, token, 'POST', '/v1/stream', { subscriptions: [] }),
      ];
      const { value: lookup } = await lookups[Symbol.asyncIterator]().next();
      const data = { audience: 'late', tokenId: 'late-1' };
      await nc.request(AUTH_CALLS.revoke, JSON.stringify({ pattern: AUTH_CALLS.revoke, data, id: '1' }));
      await eventually(async () => {
        const { status } = await call(url, token, 'GET', '/v1/asyncapi.json');
        return status === 401 || undefined;
      });
      const now = new Date().toISOString();
      const audience = { id: 'a', name: 'late', created_at: now, updated_at: now };
      lookup!.respond(JSON.stringify({ response: { audience, topic: null }, isDisposed: true, id: '1' }));
      for (const { status, body } of await Promise.all(answers)) {
        expect([status, body.code]).toEqual([401, 'unauthorized']);
      }
      await using refused = await stream;
      expect(refused.status).toBe(401);
    } finally {
      registry.thaw();
      await nc.close();
    }
  });
});

describe('a bus that is switched off', () => {
  it('answers 501', async () => {
    const gateway = await cluster.addReplica('gateway', { TRYTON_BUS: '0' });
    for (const token of [await acme.token('ann'), undefined]) {
      const { status, body } = await call(gateway.url, token, 'POST', '/acme/bus', { channels: [] });
      expect([status, body.code]).toEqual([501, 'not_implemented']);
    }
  });
});
