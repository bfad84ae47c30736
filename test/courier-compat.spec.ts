import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { KeyRing } from '@posthorn/service';
import { AppProcess, freePort, startCluster, type TestCluster, tempDir } from '@posthorn/testing';
import { type Answer, call } from './support/courier-client.js';
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

/** A client as users of the original wrote theirs: it knows `data`, and errors by their status. */
class OriginalClient {
  constructor(readonly token: string) {}

  createAudience = () => this.#call('POST', 'audience');
  createTopic = (topic: string) => this.#call('POST', 'topic', { topic });
  topics = () => this.#call('GET', 'topic');
  sign = (): Promise<{ key: string; url: string }> => this.#call('GET', 'sign');
  publish = (topic: string, message: object) =>
    this.#call('POST', 'hook', { topic, action: 'publish', message });

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
