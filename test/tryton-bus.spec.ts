import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { call } from './support/courier-client.js';
import { hangUpAtOnce } from './support/hang-up.js';
import { Poller } from './support/poller.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

/** What many busy channels get before anybody polls, and then, so many in a second. */
const MISSED = 500;
const LIVE = 1_000;
const RATE = 1_000;

describe('the long-polling bus', () => {
  let cluster: TestCluster;
  let acme: Tenant;

  beforeAll(async () => {
    cluster = await startCluster({ replicas: { gateway: 2 }, env: { BUS_TIMEOUT: '2s', BUS_CACHE: '2s' } });
    acme = await createTenant(cluster, 'acme');
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const poller = async (sub: string, channels: readonly string[], urls = cluster.gatewayUrls) =>
    new Poller({ urls, database: 'acme', token: await acme.token(sub), channels });
  /** A poll of a user's own channel, as it stands on the wire. */
  const rawPoll = async (sub: string) => {
    const body = JSON.stringify({ channels: [] });
    const head = [
      'POST /acme/bus HTTP/1.1',
      'Host: localhost',
      `Authorization: Bearer ${await acme.token(sub)}`,
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
    ];
    return `${head.join('\r\n')}\r\n\r\n${body}`;
  };
  const publish = async (topic: string, message: object) => {
    const { status } = await acme.service('POST', '/v1/hook', { topic, action: 'publish', message });
    expect(status).toBe(200);
  };
  /** A metric of all gateways together. */
  const metric = async (name: string) => {
    const values = cluster.gatewayUrls.map(async (url) => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return Number(new RegExp(`^${name}\\{[^}]*\\} (\\d+)`, 'm').exec(text)?.[1]);
    });
    return (await Promise.all(values)).reduce((sum, value) => sum + value, 0);
  };
  /** Resolves once so many polls wait at all gateways. */
  const waits = (count: number, timeout?: number) =>
    eventually(async () => ((await metric('posthorn_polls')) === count ? true : undefined), timeout);

  it('answers a waiting poll with the message, its id and its type', async () => {
    const bob = await poller('bob', ['user:somebody-else', 'news']);
    const answer = bob.poll();
    await waits(1);
    await publish('user:bob', { type: 'notification', title: 'Hello' });
    const { status, headers, body } = await answer;
    expect(status).toBe(200);
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    expect(body).toEqual({
      channel: 'user:bob',
      message: { type: 'notification', title: 'Hello', message_id: expect.any(String) },
    });
    await publish('news', { a: 1 });
    expect(await bob.next()).toEqual({ a: 1, type: 'news', message_id: expect.any(String) });
  });

  it('answers with nulls when nothing came in time', async () => {
    const began = Date.now();
    const { status, body } = await (await poller('carl', [])).poll();
    expect({ status, body }).toEqual({ status: 200, body: { channel: null, message: null } });
    expect(Date.now() - began).toBeGreaterThan(1_900);
  });

  it('begins with the messages of the last seconds', async () => {
    await publish('user:dora', { n: 1 });
    await publish('user:dora', { n: 2 });
    const dora = await poller('dora', []);
    expect(await dora.next()).toMatchObject({ n: 1 });
    expect(await dora.next()).toMatchObject({ n: 2 });
    await sleep(2_200);
    const late = await poller('dora', []);
    expect(await late.next()).toBeNull();
  });

  it('skips nothing and repeats nothing on many busy channels, each poll at another gateway', async () => {
    const channels = Array.from({ length: 50 }, (_, i) => `busy/${i}`);
    const counts = new Map<string, number>();
    const got = new Map<string, number[]>();
    const pubsub = acme.pubsub();
    await using _ = { [Symbol.asyncDispose]: () => pubsub.close() };
    let published = 0;
    const publishSome = async () => {
      const some = Array.from({ length: 20 }, (_, i) => channels[(published + i) % channels.length]!);
      await Promise.all(
        some.map((channel) => {
          const n = (counts.get(channel) ?? 0) + 1;
          counts.set(channel, n);
          return pubsub.global.topic(channel).publish({ n });
        }),
      );
      published += some.length;
    };
    const { headers } = await acme.service('POST', '/v1/hook', {
      topic: 'before',
      action: 'publish',
      message: {},
    });
    const erin = await poller('erin', channels);
    erin.last = headers.get('posthorn-position');
    // No gateway listens to these yet: they are read from the stream.
    while (published < MISSED) await publishSome();
    const readBefore = await metric('posthorn_poll_pages_total');
    const publisher = (async () => {
      const began = Date.now();
      while (published < MISSED + LIVE) {
        await publishSome();
        await sleep(began + ((published - MISSED) / RATE) * 1_000 - Date.now());
      }
    })();
    let received = 0;
    while (received < MISSED + LIVE) {
      const stored = published;
      const { body } = await erin.poll();
      expect(body.recovered).toBeUndefined();
      // A slow publisher is waited for; what was stored before the poll comes with it.
      if (!body.message) expect(received).toBeGreaterThanOrEqual(stored);
      else {
        received++;
        got.set(body.channel, [...(got.get(body.channel) ?? []), body.message.n]);
      }
    }
    await publisher;
    expect((await erin.poll()).body.message).toBeNull();
    // The hub's windows and pages serve polls: what lies before a channel's window is hardly read more than once by each
    // gateway, and once more where a slow machine lets a window end. Without them each poll would read each channel.
    const read = (await metric('posthorn_poll_pages_total')) - readBefore;
    expect(read).toBeGreaterThan(0);
    expect(read).toBeLessThanOrEqual(8 * channels.length);
    for (const channel of channels) {
      expect(got.get(channel)).toEqual(Array.from({ length: counts.get(channel)! }, (_, i) => i + 1));
    }
  }, 120_000);

  it('says so where the last message is unknown', async () => {
    for (const last of ['nonsense', 'abcz1-5', '~', '9'.repeat(100)]) {
      await publish('user:fred', { n: 1 });
      const fred = new Poller({
        urls: cluster.gatewayUrls,
        database: 'acme',
        token: await acme.token('fred'),
        channels: [],
        last,
      });
      const { body } = await fred.poll();
      expect(body).toMatchObject({ channel: 'user:fred', message: { n: 1 }, recovered: false });
    }
  });

  it('frees a waiter whose client hangs up', async () => {
    const hangUp = new AbortController();
    const polls = [await poller('gina', []), await poller('gina', [])].map((each) =>
      each.poll(hangUp.signal),
    );
    await waits(2);
    hangUp.abort();
    await Promise.allSettled(polls);
    await waits(0);
  });

  it('keeps no waiter of clients that hang up before they are known', async () => {
    const { hostname, port } = new URL(cluster.gatewayUrls[0]!);
    await hangUpAtOnce(hostname, Number(port), await rawPoll('gwen'));
    await waits(0, 2_000);
  });

  it('answers the polls that one connection pipelines, and frees them together', async () => {
    const { hostname, port } = new URL(cluster.gatewayUrls[0]!);
    const request = await rawPoll('pia');
    const socket = connect(Number(port), hostname);
    let received = '';
    socket.setEncoding('utf8').on('data', (text) => {
      received += text;
    });
    const answers = () => received.split('HTTP/1.1 200').length - 1;
    try {
      socket.write(request.repeat(20));
      await waits(20);
      await publish('user:pia', { n: 1 });
      await eventually(async () => answers() === 20 || undefined);
      expect(received.split('"n":1')).toHaveLength(21);
      await sleep(2_500);
      socket.write(request.repeat(20));
      await waits(20);
    } finally {
      socket.destroy();
    }
    await waits(0, 2_000);
    expect(cluster.app('gateway', 0).logTail(100_000)).not.toContain('MaxListeners');
  });

  it('knows its callers', async () => {
    const url = cluster.gatewayUrls[0]!;
    const ask = async (
      authorization: string | undefined,
      database = 'acme',
      body: unknown = { channels: ['client:x'] },
    ) => {
      const response = await fetch(`${url}/${encodeURIComponent(database)}/bus`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
        body: JSON.stringify(body),
      });
      const { code, detail } = (await response.json()) as { code?: string; detail?: string };
      return { status: response.status, code, detail };
    };
    const jwt = await acme.token('7');
    const session = (user: string, token = jwt) =>
      `Session ${Buffer.from(`admin:${user}:${token}`).toString('base64')}`;
    for (const refused of [
      undefined,
      'Bearer nonsense',
      'Session !',
      'Session YQ==',
      session('8'),
      session('7', 'x'),
    ]) {
      expect(await ask(refused)).toMatchObject({ status: 401 });
    }
    expect(await ask(`Bearer ${jwt}`, 'globex')).toMatchObject({ status: 401 });
    const forbidden = { channels: ['community:join'] };
    expect(await ask(session('7'), 'acme', forbidden)).toMatchObject({
      status: 403,
      detail: expect.stringContaining('community:join'),
    });
    await publish('user:7', { hello: 'tryton' });
    expect(await ask(session('7'), 'acme', { channels: [] })).toMatchObject({ status: 200 });
  });

  it('refuses what is no request', async () => {
    const token = await acme.token('hugo');
    const url = cluster.gatewayUrls[0]!;
    for (const body of [
      'no json',
      '[]',
      '{}',
      { channels: 'a' },
      { channels: [1] },
      { channels: ['a b'] },
      { channels: Array.from({ length: 10_000 }, (_, i) => `c${i}`) },
      { channels: [], last_message: 5 },
    ]) {
      expect(await call(url, token, 'POST', '/acme/bus', body)).toMatchObject({
        status: 422,
        body: { code: 'request_invalid' },
      });
    }
  });

  it('answers every waiter with nulls when the gateway drains', async () => {
    const ida = await poller('ida', [], [cluster.gatewayUrls[1]!]);
    const answer = ida.poll();
    await waits(1);
    const gateway = cluster.app('gateway', 1);
    const stopped = gateway.stop();
    expect((await answer).body).toEqual({ channel: null, message: null });
    await stopped;
    await gateway.start();
  });
});
