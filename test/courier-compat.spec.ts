import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { KeyRing } from '@posthorn/service';
import { AppProcess, freePort, startCluster, type TestCluster, tempDir } from '@posthorn/testing';
import { WebSocket } from 'ws';
import { type Answer, CourierSocket, call } from './support/courier-client.js';
import { seconds } from './support/tenant.js';

const CONTRACT = { 'posthorn-version': '1' };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let cluster: TestCluster;
let base: string;

beforeAll(async () => {
  cluster = await startCluster({ env: { NODE_ENV: 'production', COURIER_COMPAT: '1' } });
  base = cluster.gatewayUrls[0]!;
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** A client as users of the original wrote theirs: it knows `data`, bare messages, and no error but by its status. */
class OriginalClient {
  constructor(readonly token: string) {}

  createAudience = () => this.#call('POST', 'audience');
  createTopic = (topic: string) => this.#call('POST', 'topic', { topic });
  topics = () => this.#call('GET', 'topic');
  sign = (): Promise<{ key: string; url: string }> => this.#call('GET', 'sign');
  publish = (topic: string, message: object) =>
    this.#call('POST', 'hook', { topic, action: 'publish', message });

  /** A socket, with the connection's id as its first message. */
  async connect(): Promise<OriginalSocket> {
    return OriginalSocket.open((await this.sign()).url);
  }

  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape
  async #call(method: string, path: string, body?: object): Promise<any> {
    const response = await fetch(`${base}/v1/${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        'Content-Type': 'application/json;charset=utf-8',
      },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (response.status !== 200) throw new Error(`${path} answered ${response.status}`);
    const { data } = (await response.json()) as { data: unknown };
    return data;
  }
}

/** The socket of such a client: every message is text, the first one is the connection's id. */
class OriginalSocket implements AsyncDisposable {
  readonly messages: string[] = [];
  readonly socket: WebSocket;

  private constructor(url: string) {
    this.socket = new WebSocket(url);
    this.socket.on('message', (data, isBinary) => this.messages.push(isBinary ? 'binary' : String(data)));
    this.socket.on('error', () => {});
  }

  static async open(url: string): Promise<OriginalSocket> {
    const socket = new OriginalSocket(url);
    await socket.received(1);
    return socket;
  }

  send(frame: object | string): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  subscribe(topic: string): void {
    this.send({ action: 'subscribe', topic });
  }

  /** What came after the id. */
  get deliveries(): unknown[] {
    return this.messages.slice(1).map((text) => JSON.parse(text));
  }

  /** Resolves once so many messages have come, the id among them. */
  async received(n: number): Promise<void> {
    while (this.messages.length < n)
      await once(this.socket, 'message', { signal: AbortSignal.timeout(10_000) });
  }

  /** Nothing says that a subscription has begun: the client's own message on that topic comes back when it has. */
  async settled(topic: string): Promise<void> {
    const n = this.messages.length;
    this.send({ action: 'publish', topic, message: { settled: n } });
    while (!this.messages.includes(JSON.stringify({ settled: n })))
      await this.received(this.messages.length + 1);
  }

  /** The code with which the server ended the connection. */
  async closed(): Promise<number> {
    const [code] = await once(this.socket, 'close', { signal: AbortSignal.timeout(10_000) });
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.socket.readyState === WebSocket.CLOSED) return;
    this.socket.terminate();
    await once(this.socket, 'close');
  }
}

let audiences = 0;
/** A fresh audience, and clients of the original for its users. Their tokens never end. */
async function tenant() {
  const audience = `original-${++audiences}`;
  const client = async (sub: string) =>
    new OriginalClient(await cluster.token({ aud: audience, sub, exp: null }));
  await (await client('ann')).createAudience();
  return { audience, client };
}

function expectError({ status, headers, body }: Answer, wanted: number, code: string): void {
  expect(status).toBe(wanted);
  expect(headers.get('content-type')).toMatch(/^application\/json/);
  expect(body).toEqual({ status: wanted, error: expect.any(String), code });
}

describe('REST for clients of the original', () => {
  it('answers as the original did, from the audience to the hook', async () => {
    const ann = new OriginalClient(await cluster.token({ aud: 'my-audience.com', sub: 'ann', exp: null }));
    const audience = {
      id: expect.stringMatching(UUID),
      name: 'my-audience.com',
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      updatedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    };
    const created = await ann.createAudience();
    expect(created).toEqual(audience);
    expect(await ann.createAudience()).toEqual(created);

    const topic = await ann.createTopic('system/events');
    expect(topic).toEqual({
      id: expect.stringMatching(UUID),
      topic: 'system/events',
      audience: created,
      audienceId: created.id,
      createdAt: expect.any(String),
      updatedAt: expect.any(String),
      durable: true,
    });
    expect(await ann.topics()).toEqual([topic]);

    const message = { type: 'database', created_at: 'the caller’s own' };
    expect(await ann.publish('system/events', message)).toEqual({
      topic: 'system/events',
      action: 'publish',
      message,
    });
    const { key, url } = await ann.sign();
    expect(url).toBe(`${base.replace('http', 'ws')}/ws?token=${key}`);
  });

  it('tells errors by status, text and code', async () => {
    const { audience, client } = await tenant();
    const { token } = await client('ann');
    const hook = (body: unknown) => call(base, token, 'POST', '/v1/hook', body);
    expectError(await call(base, undefined, 'GET', '/v1/sign'), 401, 'unauthorized');
    expectError(await call(base, 'forged', 'GET', '/v1/topic'), 401, 'unauthorized');
    const stranger = await cluster.token({ aud: 'nobody', sub: 'ann' });
    expectError(await call(base, stranger, 'GET', '/v1/sign'), 404, 'audience_not_found');
    expectError(await hook({ topic: 'user:bob', action: 'publish', message: {} }), 403, 'forbidden');
    expectError(await hook('{'), 422, 'request_invalid');
    const unfit = await hook({ action: 'publish', message: [] });
    expectError(unfit, 422, 'request_invalid');
    expect(unfit.body.error).toMatch(/\/topic must be a text; \/message must be an object$/);
    const expired = await cluster.token({ aud: audience, sub: 'ann', exp: seconds() - 1 });
    expectError(await call(base, expired, 'GET', '/v1/sign'), 401, 'token_expired');
  });

  it('keeps to the contract for a call that asks for it', async () => {
    const jwt = await cluster.token({ aud: 'contract', sub: 'ann' });
    const ask = (method: string, path: string, body?: unknown) =>
      call(base, jwt, method, path, body, CONTRACT);
    const made = await ask('POST', '/v1/audience');
    expect(made).toMatchObject({ status: 201, body: { name: 'contract', created_at: expect.any(String) } });
    const topic = await ask('POST', '/v1/topic', { topic: 'news' });
    expect(topic).toMatchObject({
      status: 201,
      body: { audience: 'contract', created_at: expect.any(String) },
    });
    expect((await ask('GET', '/v1/topic')).body).toEqual([topic.body]);
    expect((await ask('GET', '/v1/sign')).body).toEqual({ key: expect.any(String), url: expect.any(String) });
    const refused = await ask('POST', '/v1/hook', { topic: 'user:bob', action: 'publish', message: {} });
    expect(refused.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(refused.body).toMatchObject({ status: 403, code: 'forbidden', detail: expect.any(String) });
  });

  it('leaves other calls as they are', async () => {
    const { client } = await tenant();
    const { token } = await client('ann');
    expect((await call(base, token, 'GET', '/v1/notifications')).body).toMatchObject({ items: [] });
    expect((await call(base, undefined, 'GET', '/docs-json')).body).toMatchObject({ openapi: '3.1.0' });
    expect((await call(base, undefined, 'GET', '/health/ready')).status).toBe(200);
    for (const path of ['/v1/notifications?limit=none', '/v1/channel']) {
      const { headers, body } = await call(base, token, 'GET', path);
      expect(headers.get('content-type')).toMatch(/^application\/problem\+json/);
      expect(body).toMatchObject({ type: expect.any(String), detail: expect.any(String) });
    }
  });
});

describe('tokens and keys for clients of the original', () => {
  it('give a key that lives as long as its token', async () => {
    const { audience, client } = await tenant();
    const keys = new KeyRing(cluster.secrets.key);
    const hour = await cluster.token({ aud: audience, sub: 'ann', exp: seconds() + 3_600 });
    const bounded = (await new OriginalClient(hour).sign()).key;
    const endless = (await (await client('ann')).sign()).key;
    const opensAfter = async (key: string, minutes: number) => {
      const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + minutes * 60_000);
      try {
        return (await keys.open(key, 'socket')).sub;
      } finally {
        clock.mockRestore();
      }
    };
    await expect(opensAfter(bounded, 59)).resolves.toBe('ann');
    await expect(opensAfter(bounded, 61)).rejects.toMatchObject({ code: 'token_expired' });
    await expect(opensAfter(endless, 10 * 365 * 24 * 60)).resolves.toBe('ann');
  });

  it('may be without an end in production, where the contract alone refuses that', async () => {
    const { client } = await tenant();
    const { token } = await client('ann');
    expect((await call(base, token, 'GET', '/v1/topic')).status).toBe(200);

    await using dir = await tempDir();
    const strict = new AppProcess({
      name: 'gateway',
      port: await freePort(),
      logFile: join(dir.path, 'gateway.log'),
      env: {
        NODE_ENV: 'production',
        HOST: '127.0.0.1',
        NATS_URL: cluster.natsUrl,
        JWT_SECRET: cluster.secrets.jwt,
        KEY_SECRET: cluster.secrets.key,
      },
    });
    try {
      await strict.start();
      const { status, body } = await call(strict.url, token, 'GET', '/v1/topic');
      expect({ status, code: body.code }).toEqual({ status: 401, code: 'unauthorized' });
    } finally {
      await strict.stop();
    }
  }, 60_000);
});

describe('a socket for clients of the original', () => {
  it('gets the id of its connection as text, then bare messages, and nothing else', async () => {
    const { client } = await tenant();
    const user = await client('ann');
    await using ann = await user.connect();
    await using bob = await (await client('bob')).connect();
    ann.subscribe('system/events');
    ann.subscribe('system/events');
    await ann.settled('system/events');
    await user.publish('system/events', { type: 'database' });
    bob.send({ action: 'publish', topic: 'system/events', message: { type: 'socket', by: 'bob' } });
    await ann.received(4);
    ann.send({ action: 'unsubscribe', topic: 'system/events' });
    ann.subscribe('system/other');
    await ann.settled('system/other');
    await user.publish('system/events', { type: 'unheard' });
    await user.publish('system/other', { type: 'last' });
    await ann.received(6);
    expect(ann.messages[0]).toMatch(UUID);
    expect(ann.deliveries).toEqual([
      { settled: 1 },
      { type: 'database' },
      { type: 'socket', by: 'bob' },
      { settled: 4 },
      { type: 'last' },
    ]);
    expect(bob.messages).toEqual([expect.stringMatching(UUID)]);
  });

  it('gets a broadcast once while it is subscribed to anything', async () => {
    const { client } = await tenant();
    const connect = async (sub: string) => (await client(sub)).connect();
    await using ann = await connect('ann');
    await using bob = await connect('bob');
    await using carol = await connect('carol');
    carol.subscribe('c');
    await carol.settled('c');
    ann.subscribe('a');
    ann.subscribe('b');
    await ann.settled('a');
    bob.send({ action: 'broadcast', message: { n: 1 } });
    await ann.received(3);
    ann.send({ action: 'unsubscribe', topic: 'a' });
    ann.send({ action: 'broadcast', message: { n: 2 } });
    await ann.received(4);
    ann.send({ action: 'unsubscribe', topic: 'b' });
    ann.send({ action: 'broadcast', message: { n: 3 } });
    await carol.received(5);
    expect(carol.deliveries).toEqual([{ settled: 1 }, { n: 1 }, { n: 2 }, { n: 3 }]);
    ann.subscribe('d');
    await ann.settled('d');
    bob.subscribe('e');
    await bob.settled('e');
    expect(ann.deliveries).toEqual([{ settled: 1 }, { n: 1 }, { n: 2 }, { settled: 4 }]);
    expect(bob.deliveries).toEqual([{ settled: 1 }]);
  });

  it('is closed for JSON that is none, after what came before it', async () => {
    const { client } = await tenant();
    await using ann = await (await client('ann')).connect();
    await using bob = await (await client('bob')).connect();
    bob.subscribe('a');
    await bob.settled('a');
    ann.send({ action: 'publish', topic: 'a', message: { n: 1 } });
    ann.send('{"action":');
    expect(await ann.closed()).toBe(1008);
    await bob.received(3);
    expect(bob.deliveries).toEqual([{ settled: 1 }, { n: 1 }]);
    expect(ann.messages).toEqual([expect.stringMatching(UUID)]);
  });

  it('is told nothing of what was refused or is unknown, and stays open', async () => {
    const { client } = await tenant();
    await using ann = await (await client('ann')).connect();
    for (let i = 0; i < 30; i++) ann.send({ action: 'heartbeat' });
    ann.send({ action: 'ping' });
    ann.send({ action: 'publish', topic: 'a', message: 'a text' });
    ann.send({ action: 'publish', topic: 'user:bob', message: {} });
    ann.subscribe('personal.bob');
    ann.subscribe('a');
    await ann.settled('a');
    expect(ann.deliveries).toEqual([{ settled: 1 }]);
  });

  it('loses nothing when it publishes faster than it may', async () => {
    const { client } = await tenant();
    await using ann = await (await client('ann')).connect();
    const sent = Array.from({ length: 300 }, (_, n) => ({ n }));
    ann.subscribe('fast');
    for (const message of sent) ann.send({ action: 'publish', topic: 'fast', message });
    await ann.received(1 + sent.length);
    expect(ann.deliveries).toEqual(sent);
  });

  it('may come again with the same URL, and ends in silence with its token', async () => {
    const { audience } = await tenant();
    const jwt = await cluster.token({ aud: audience, sub: 'ann', exp: seconds() + 5 });
    const { url } = await new OriginalClient(jwt).sign();
    await using first = await OriginalSocket.open(url);
    await using second = await OriginalSocket.open(url);
    expect(await Promise.all([first.closed(), second.closed()])).toEqual([4401, 4401]);
    expect(first.messages).toEqual([expect.stringMatching(UUID)]);
    expect(second.messages).not.toEqual(first.messages);
  });

  it('is closed with 1012, and no word before it, when its gateway goes down', async () => {
    const { client } = await tenant();
    const { key } = await (await client('ann')).sign();
    const leaving = await cluster.addReplica('gateway');
    await using ann = await OriginalSocket.open(`${leaving.url.replace('http', 'ws')}/ws?token=${key}`);
    const [code] = await Promise.all([ann.closed(), leaving.stop()]);
    expect(code).toBe(1012);
    expect(ann.messages).toEqual([expect.stringMatching(UUID)]);
  }, 60_000);

  it('has the contract where it offers posthorn.v1, beside those of the original', async () => {
    const { client } = await tenant();
    const user = await client('ann');
    const { key, url } = await user.sign();
    await using ours = new CourierSocket(url.split('?')[0]!, ['posthorn.v1', `posthorn.key.${key}`]);
    await using theirs = await user.connect();
    expect(await ours.next('welcome')).toMatchObject({ connection: expect.stringMatching(UUID) });
    await ours.subscribe('news');
    theirs.subscribe('news');
    await theirs.settled('news');
    expect(await ours.next('message')).toEqual({
      action: 'message',
      topic: 'news',
      id: expect.any(String),
      position: expect.any(String),
      message: { settled: 1 },
    });
    ours.send('{');
    expect(await ours.next('error')).toMatchObject({ code: 'request_invalid' });
    ours.send({ action: 'unsubscribe', topic: 'news' });
    theirs.send({ action: 'broadcast', message: { n: 1 } });
    expect(await ours.next('broadcast')).toMatchObject({ message: { n: 1 } });
    await theirs.received(3);
    expect(theirs.deliveries).toEqual([{ settled: 1 }, { n: 1 }]);
  });

  it('is closed with 1012 where it would have to be told that something is away', async () => {
    const { client } = await tenant();
    await using publisher = await (await client('ann')).connect();
    await using subscriber = await (await client('bob')).connect();
    await cluster.nats.kill();
    try {
      await cluster.app('gateway').unready();
      const codes = Promise.all([publisher.closed(), subscriber.closed()]);
      publisher.send({ action: 'publish', topic: 'a', message: {} });
      subscriber.subscribe('a');
      expect(await codes).toEqual([1012, 1012]);
    } finally {
      await cluster.nats.start();
      for (const name of ['gateway', 'auth', 'registry'] as const) await cluster.app(name).ready();
    }
  }, 60_000);
});
