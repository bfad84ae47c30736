/** What stands around every call: headers for browsers, whose pages may call, and how much one address may open. */
import { once } from 'node:events';
import { type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type AppProcess, startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket, call, refusedUpgrade } from './support/courier-client.js';
import { EventStreamClient } from './support/event-source.js';
import { sendRaw } from './support/raw.js';
import { createTenant, type Tenant } from './support/tenant.js';

const ORIGIN = 'https://app.example';
const OTHERS = ['https://evil.example', 'https://app.example.evil.example', 'http://app.example', 'null'];
const LIMIT = 3;

let cluster: TestCluster;
let acme: Tenant;
let base: string;
/** A gateway behind a proxy, at most {@link LIMIT} connections of an address. */
let proxied: AppProcess;

beforeAll(async () => {
  cluster = await startCluster({
    env: {
      ALLOWED_ORIGINS: `${ORIGIN},https://*.team.example`,
      PUBLIC_WS_URL: 'wss://events.example',
    },
  });
  proxied = await cluster.addReplica('gateway', { TRUST_PROXY: '1', ADDRESS_LIMIT: String(LIMIT) });
  acme = await createTenant(cluster, 'acme');
  base = cluster.gatewayUrls[0]!;
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function signed(gateway: string, kind: 'socket' | 'stream'): Promise<string> {
  const { body } = await call(gateway, await acme.token('ann'), 'GET', `/v1/sign?for=${kind}`);
  const key = encodeURIComponent(body.key);
  return kind === 'socket'
    ? `${gateway.replace('http', 'ws')}/ws?token=${key}`
    : `${gateway}/v1/stream?token=${key}`;
}

/** An answer to headers that `fetch` would not send. */
async function answer(
  url: string,
  { method = 'GET', headers = {} }: { method?: string; headers?: Record<string, string> } = {},
): Promise<{ readonly status: number; readonly headers: IncomingHttpHeaders }> {
  const asked = request(url, { method, headers, agent: false });
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  response.destroy();
  return { status: response.statusCode ?? 0, headers: response.headers };
}

describe('every answer', () => {
  it.each([
    ['a success', 'GET', '/v1/topic', 200],
    ['a key', 'GET', '/v1/sign', 200],
    ['a stream', 'GET', '/v1/stream?topics=a', 200],
    ['a refusal', 'GET', '/v1/notifications?limit=0', 422],
    ['no such call', 'GET', '/nothing', 404],
    ['a path that is none', 'GET', '/v1/%zz', 422],
    ['a probe', 'GET', '/health/ready', 200],
    ['a preflight', 'OPTIONS', '/v1/topic', 204],
  ])('tells browsers what it is not for: %s', async (_, method, path, status) => {
    const authorization = `Bearer ${await acme.token('ann')}`;
    const { headers, ...got } = await answer(base + path, {
      method,
      headers: { authorization, origin: ORIGIN },
    });
    expect(got.status).toBe(status);
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'content-security-policy': expect.stringMatching(/^default-src 'none';.*frame-ancestors 'none'/),
      'cross-origin-resource-policy': 'same-origin',
      'cache-control': 'no-store',
      'strict-transport-security': 'max-age=31536000',
    });
    expect(headers).not.toHaveProperty('x-powered-by');
    expect(headers).not.toHaveProperty('server');
  });

  it('does so where the request was no HTTP, or an upgrade', async () => {
    const port = Number(new URL(base).port);
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
    for (const bytes of ['nonsense\r\n\r\n', `GET /ws HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`]) {
      const { headers } = (await sendRaw(port, bytes))!;
      expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
    }
  });

  it('may be kept where it says so', async () => {
    const { headers } = await answer(`${base}/v1/asyncapi.json`);
    expect(headers['cache-control']).toBe('public, max-age=300');
  });
});

describe('a page', () => {
  it.each([ORIGIN, 'https://www.team.example'])(
    'of %s may call, read, and open sockets and streams',
    async (origin) => {
      const preflight = await answer(`${base}/v1/stream`, {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization',
        },
      });
      expect(preflight.headers).toMatchObject({
        'access-control-allow-origin': origin,
        'access-control-max-age': '600',
        'access-control-allow-headers': 'authorization',
        vary: expect.stringContaining('Origin'),
      });
      const { headers } = await answer(`${base}/v1/topic`, { headers: { origin } });
      expect(headers).toMatchObject({
        'access-control-allow-origin': origin,
        vary: expect.stringContaining('Origin'),
      });
      expect(headers['access-control-expose-headers']).toContain('Retry-After');
      expect(headers).not.toHaveProperty('access-control-allow-credentials');
      await using socket = new CourierSocket(await signed(base, 'socket'), [], { origin });
      await socket.next('welcome');
      expect((await answer(await signed(base, 'stream'), { headers: { origin } })).status).toBe(200);
    },
  );

  it.each(OTHERS)('of %s may do none of it', async (origin) => {
    for (const method of ['OPTIONS', 'GET']) {
      const asked = { origin, 'access-control-request-method': 'POST' };
      const { headers } = await answer(`${base}/v1/topic`, { method, headers: asked });
      expect(headers).not.toHaveProperty('access-control-allow-origin');
      expect(headers.vary).toContain('Origin');
    }
    expect(await refusedUpgrade(await signed(base, 'socket'), [], { origin })).toBe(403);
    expect((await answer(await signed(base, 'stream'), { headers: { origin } })).status).toBe(403);
    const authorization = `Bearer ${await acme.token('ann')}`;
    const posted = await answer(`${base}/v1/stream`, { method: 'POST', headers: { origin, authorization } });
    expect(posted.status).toBe(403);
  });

  it('may not embed a stream as a picture', async () => {
    const url = await signed(base, 'stream');
    const embedded = { 'sec-fetch-mode': 'no-cors', 'sec-fetch-site': 'cross-site' };
    expect((await answer(url, { headers: embedded })).status).toBe(403);
    expect((await answer(url)).status).toBe(200);
  });
});

describe('an address behind a proxy', () => {
  const from = (address: string) => ({ headers: { 'x-forwarded-for': `203.0.113.9, ${address}` } });

  it('has so many sockets and streams together: one more is refused before its upgrade', async () => {
    const { url } = proxied;
    const [ann, bob] = [from('198.51.100.1'), from('198.51.100.2')];
    const socketUrl = await signed(url, 'socket');
    const streamUrl = await signed(url, 'stream');
    const sockets = [];
    for (let i = 1; i < LIMIT; i++) {
      sockets.push(new CourierSocket(socketUrl, [], ann));
      await sockets.at(-1)!.next('welcome');
    }
    const stream = await EventStreamClient.open(streamUrl, ann);
    expect(stream.status).toBe(200);

    expect(await refusedUpgrade(socketUrl, [], ann)).toBe(429);
    const { status, headers } = await answer(`${url}/v1/topic`, {
      headers: { ...ann.headers, origin: ORIGIN },
    });
    expect([status, headers['retry-after']]).toEqual([429, '5']);
    // Its page may read for how long.
    expect(headers['access-control-allow-origin']).toBe(ORIGIN);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^posthorn_problems_total\{.*code="rate_limited".*\} 2$/m);
    expect(metrics).toMatch(/^posthorn_address_refusals_total\{.*reason="open".*\} 2$/m);

    await using other = new CourierSocket(socketUrl, [], bob);
    await other.next('welcome');
    await stream[Symbol.asyncDispose]();
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
    for (;;) {
      const again = new CourierSocket(socketUrl, [], ann);
      const welcome = await again.next('welcome').catch(() => undefined);
      await again[Symbol.asyncDispose]();
      if (welcome) break;
    }
  });
});
