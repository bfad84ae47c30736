/** The server without its faces: slow clients, large requests, and addresses with too many connections. */
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from '@jest/globals';
import { createLogger, Metrics, toProblem, writeProblem } from '@posthorn/service';
import type { FastifyInstance } from 'fastify';
import { readGatewayConfig } from '../config.js';
import { GatewayMetrics } from '../metrics.js';
import { AddressGate } from './address-gate.js';
import { createAdapter } from './server.js';

const SECRET = 'x'.repeat(32);
const lines: Record<string, unknown>[] = [];
const logger = createLogger({
  app: 'gateway',
  destination: { write: (line) => void lines.push(JSON.parse(line)) },
});
let fastify: FastifyInstance | undefined;
let metrics: Metrics;
/** Calls that are never answered. */
let slow = 0;
const open: Socket[] = [];

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  await fastify?.close();
  fastify = undefined;
  lines.length = 0;
  slow = 0;
});

/** Starts a server with two calls. Nothing is exempt but what the test says. */
async function start(env: NodeJS.ProcessEnv = {}): Promise<number> {
  const config = readGatewayConfig({
    JWT_SECRET: SECRET,
    KEY_SECRET: SECRET,
    ADDRESS_EXEMPT: '192.0.2.0/24',
    ...env,
  });
  metrics = new Metrics('gateway');
  const gatewayMetrics = new GatewayMetrics(metrics, () => 0, 0);
  const addresses = new AddressGate({ config, metrics: gatewayMetrics, logger });
  const service = { logger, tracing: undefined, shutdown: { signal: new AbortController().signal } };
  const server = createAdapter({ addresses, config, metrics: gatewayMetrics, service }).getInstance();
  fastify = server;
  server.setErrorHandler((error, _, reply) => writeProblem(reply, toProblem(error)));
  server.get('/', async ({ headers }) => Object.keys(headers).length);
  server.get('/slow', () => {
    slow += 1;
    return new Promise(() => {});
  });
  server.get('/v1/stream', (_, reply) => {
    reply.hijack();
    reply.raw.writeHead(200).write('begun');
  });
  server.post('/v1/hook', async ({ body }) => JSON.stringify(body).length);
  server.post('/v1/topic', async ({ body }) => JSON.stringify(body).length);
  await server.listen({ port: 0, host: '127.0.0.1' });
  return (server.server.address() as AddressInfo).port;
}

/** A connection that says what it is told to, and keeps what it hears. */
class Line {
  readonly socket: Socket;
  heard = '';
  readonly ended: Promise<void>;

  constructor(port: number, bytes = '') {
    this.socket = connect(port, '127.0.0.1');
    this.socket.setEncoding('latin1');
    this.socket.on('error', () => {});
    this.ended = new Promise((resolve) => this.socket.once('close', () => resolve()));
    this.socket.on('data', (text: string) => {
      this.heard += text;
    });
    open.push(this.socket);
    this.socket.write(bytes);
  }

  /** The status of the first answer; 0 where the connection ended without one. */
  async status(): Promise<number> {
    while (!this.heard.includes('\r\n\r\n') && !this.socket.destroyed) {
      await Promise.race([once(this.socket, 'data'), this.ended]);
    }
    return Number(this.heard.split(' ')[1] ?? 0);
  }

  header(name: string): string | undefined {
    return new RegExp(`^${name}: (.*)\r$`, 'im').exec(this.heard)?.[1];
  }

  async close(): Promise<void> {
    this.socket.destroy();
    await this.ended;
  }
}

const get = (path = '/', headers = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;
const post = (path: string, body: string, headers = '') =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`;
const from = (...addresses: string[]) =>
  addresses.map((address) => `X-Forwarded-For: ${address}\r\n`).join('');
const statuses = (lines: readonly Line[]) => Promise.all(lines.map((line) => line.status()));

/** Waits until a server's count of connections is so high. */
async function connections(count: number): Promise<void> {
  for (;;) {
    const now = await new Promise<number>((resolve, reject) =>
      fastify!.server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
    );
    if (now === count) return;
    await sleep(5);
  }
}

/** Waits until a call of a proxy's client is answered so. */
async function answered(port: number, address: string, status: number): Promise<void> {
  for (;;) {
    const line = new Line(port, get('/', from(address)));
    const got = await line.status();
    await line.close();
    if (got === status) return;
  }
}

const refusals = async (reason: 'open' | 'rate') => {
  const { body } = await metrics.exposition();
  const line = body
    .split('\n')
    .find((text) => text.includes(`address_refusals_total{`) && text.includes(`"${reason}"`));
  return Number(line?.split(' ').at(-1));
};

describe('a slow client', () => {
  const SHORT = { HEADERS_TIMEOUT: '200ms', REQUEST_TIMEOUT: '400ms', KEEP_ALIVE_TIMEOUT: '100ms' };

  it.each([
    ['says nothing', ''],
    ['does not end its headers', 'GET / HTTP/1.1\r\nHost: x\r\n'],
    ['does not end the first line', 'GET /'],
    ['does not send its body', 'POST /v1/hook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n'],
    [
      'does not end a chunk',
      'POST /v1/hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{',
    ],
  ])('that %s is told so, and cut off', async (_, bytes) => {
    const line = new Line(await start(SHORT), bytes);
    await line.ended;
    expect(await line.status()).toBe(422);
    expect(line.heard).toContain('"The request did not come in time"');
    expect(line.header('x-content-type-options')).toBe('nosniff');
  });

  it('that sends a byte now and then is cut off all the same', async () => {
    const line = new Line(await start(SHORT), 'GET / HTTP/1.1\r\nHost: x\r\n');
    const dripping = setInterval(() => line.socket.write('X: y\r\n'), 20);
    await line.ended;
    clearInterval(dripping);
    expect(await line.status()).toBe(422);
  });

  it('that asks for nothing more is hung up on', async () => {
    const line = new Line(await start(SHORT), get());
    await line.ended;
    expect(await line.status()).toBe(200);
    expect(line.heard.match(/HTTP\/1\.1/g)).toHaveLength(1);
  });
});

describe('a large request', () => {
  const json = (bytes: number) => JSON.stringify('x'.repeat(bytes - 2));

  it.each([
    ['a payload', '/v1/hook', 1_200_000, 200],
    ['a payload and more', '/v1/hook', 1_200_001, 413],
    ['no payload', '/v1/topic', 262_144, 200],
    ['no payload and more', '/v1/topic', 262_145, 413],
  ])('with %s (POST %s, %i bytes) is answered %i', async (_, path, bytes, status) => {
    const line = new Line(await start(), post(path, json(bytes)));
    expect(await line.status()).toBe(status);
  });

  it('in chunks is held to the same', async () => {
    const body = json(262_145);
    const chunks = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
    const line = new Line(
      await start(),
      post('/v1/topic', '', 'Transfer-Encoding: chunked\r\n').replace(/Content-Length: 0\r\n/, '') + chunks,
    );
    expect(await line.status()).toBe(413);
  });

  it.each(['gzip', 'deflate', 'br', 'GZIP', 'identity, gzip'])(
    'that is packed (%s) is refused',
    async (encoding) => {
      const line = new Line(await start(), post('/v1/hook', 'x', `Content-Encoding: ${encoding}\r\n`));
      expect(await line.status()).toBe(422);
    },
  );

  it('keeps all of its headers, up to 32 KiB', async () => {
    const port = await start();
    const many = Array.from({ length: 3_000 }, (_, i) => `${i}:\r\n`).join('');
    const line = new Line(port, get('/', `${many}Connection: close\r\n`));
    await line.ended;
    expect(line.heard.split('\r\n\r\n')[1]).toBe('3002');
    expect(await new Line(port, get('/', `X: ${'x'.repeat(33_000)}\r\n`)).status()).toBe(413);
    expect(await new Line(port, get(`/?${'x'.repeat(33_000)}`)).status()).toBe(413);
  });
});

describe('calls that one connection sends in one go', () => {
  it('are served in their order, up to 32 that wait for their answers', async () => {
    const port = await start();
    const line = new Line(port);
    const answers = () => line.heard.split('HTTP/1.1 200').length - 1;
    for (const count of [32, 64]) {
      line.socket.write(get().repeat(32));
      while (answers() < count) await once(line.socket, 'data');
    }
    expect(line.socket.destroyed).toBe(false);
  });

  it('are not served beyond that: the connection is cut, before answers pile up that nobody reads', async () => {
    const line = new Line(await start(), get('/slow').repeat(1_000));
    await line.ended;
    expect(line.heard).toBe('');
    expect(slow).toBe(32);
  });
});

describe('the log', () => {
  it('tells of every call, and of those, too, that wait behind another one when their connection ends', async () => {
    const port = await start();
    const line = new Line(port, get('/slow').repeat(3));
    while (slow < 3) await sleep(5);
    await line.close();
    while (lines.length < 3) await sleep(5);
    const told = { msg: 'request', route: '/slow', aborted: true };
    expect(lines).toEqual([told, told, told].map((one) => expect.objectContaining(one)));
    expect(new Set(lines.map(({ request }) => request)).size).toBe(3);
  });
});

describe('the connections of an address', () => {
  it('are so many: one more is refused, one that ends frees its place', async () => {
    const port = await start({ ADDRESS_LIMIT: '3' });
    const lines = [new Line(port, get('/slow')), new Line(port), new Line(port, get())];
    expect(await lines[2]!.status()).toBe(200);
    await connections(3);
    const refused = new Line(port, get());
    expect(await refused.status()).toBe(429);
    expect(refused.heard).toContain('"rate_limited"');
    expect(Number(refused.header('retry-after'))).toBe(5);
    await refused.ended;
    expect(await refusals('open')).toBe(1);
    await lines[0]!.close();
    await connections(2);
    expect(await new Line(port, get()).status()).toBe(200);
  });

  it('are refused for good: a second request on one is not served, though there is room by then', async () => {
    const port = await start({ ADDRESS_LIMIT: '1' });
    const first = new Line(port);
    await connections(1);
    const refused = new Line(port);
    await connections(2);
    await first.close();
    refused.socket.write(get() + get());
    await refused.ended;
    expect(refused.heard.match(/HTTP\/1\.1 (\d+)/g)).toEqual(['HTTP/1.1 429']);
  });

  it('are cut where the address goes on', async () => {
    const port = await start({ ADDRESS_LIMIT: '1' });
    const lines = Array.from({ length: 70 }, () => new Line(port));
    while ((await refusals('open')) < 69) await sleep(5);
    for (const { socket } of lines) socket.write(get());
    const cut = (await statuses(lines)).filter((status) => status === 0);
    expect(cut).toHaveLength(5);
  });

  it('that are refused and ask for nothing do not stay', async () => {
    const port = await start({ ADDRESS_LIMIT: '1', HEADERS_TIMEOUT: '200ms' });
    const first = new Line(port, get('/slow'));
    await connections(1);
    await new Line(port).ended;
    expect(first.socket.destroyed).toBe(false);
  });

  it('are opened at a rate', async () => {
    const port = await start({ ADDRESS_RATE: '1', ADDRESS_BURST: '3' });
    const all = await statuses(Array.from({ length: 30 }, () => new Line(port, get())));
    expect(all.filter((status) => status === 200).length).toBeGreaterThanOrEqual(3);
    expect(all).toContain(429);
    expect(await refusals('rate')).toBeGreaterThanOrEqual(1);
  });

  it('have no limit where the address is exempt', async () => {
    const port = await start({ ADDRESS_LIMIT: '1', ADDRESS_BURST: '1', ADDRESS_EXEMPT: '127.0.0.0/8' });
    const lines = Array.from({ length: 20 }, () => new Line(port, get()));
    expect(new Set(await statuses(lines))).toEqual(new Set([200]));
  });

  it('count once where an offer to upgrade is passed over', async () => {
    const port = await start({ ADDRESS_LIMIT: '2' });
    const { server } = fastify!;
    server.on('upgrade', (_, stream) => {
      stream.unshift(Buffer.from(get()));
      server.emit('connection', stream);
    });
    const lines = [0, 1].map(() => new Line(port, get('/', 'Connection: Upgrade\r\nUpgrade: h2c\r\n')));
    expect(await statuses(lines)).toEqual([200, 200]);
    expect(await new Line(port, get()).status()).toBe(429);
  });
});

describe('behind a proxy, an address', () => {
  const ANN = '198.51.100.1';
  const BOB = '198.51.100.2';

  it('is the last one told: what the caller says before it frees nobody and blames nobody', async () => {
    const port = await start({ TRUST_PROXY: '1', ADDRESS_LIMIT: '2' });
    const lines = [
      new Line(port, get('/slow', from(`${BOB}, ${ANN}`))),
      new Line(port, get('/slow', from(BOB, ANN))),
    ];
    await answered(port, ANN, 429);
    for (const forged of [
      from(`${BOB}, ${ANN}`),
      from('192.0.2.1', ANN),
      from(`10.0.0.1,${ANN}`),
      from(`${ANN}:99`),
    ]) {
      expect([forged, await new Line(port, get('/', forged)).status()]).toEqual([forged, 429]);
    }
    const forged = Array.from({ length: 2_500 }, (_, i) => `${i}:\r\n`).join('');
    expect(await new Line(port, get('/', forged + from(ANN))).status()).toBe(429);
    expect(await new Line(port, get('/', from(`${ANN}, ${BOB}`))).status()).toBe(200);
    await lines[0]!.close();
    await answered(port, ANN, 200);
  });

  it('has a place for each request until it is answered, on one connection of the proxy', async () => {
    const port = await start({ TRUST_PROXY: '1', ADDRESS_LIMIT: '1' });
    const line = new Line(
      port,
      get('/', from(ANN)) + get('/', from(ANN)) + get('/', `${from(ANN)}Connection: close\r\n`),
    );
    await line.ended;
    expect(line.heard.match(/HTTP\/1\.1 (\d+)/g)).toHaveLength(3);
    expect(await new Line(port, get('/', from(ANN))).status()).toBe(200);
  });

  it('gives back what waits on a connection that ends', async () => {
    const port = await start({ TRUST_PROXY: '1', ADDRESS_LIMIT: '3' });
    const line = new Line(port, get('/slow', from(ANN)).repeat(3));
    await answered(port, ANN, 429);
    await line.close();
    await answered(port, ANN, 200);
  });

  it('is of IPv6 the /64', async () => {
    const port = await start({ TRUST_PROXY: '1', ADDRESS_LIMIT: '2' });
    const ask = (address: string) => new Line(port, get('/v1/stream', from(address))).status();
    expect([await ask('2001:db8::1'), await ask('2001:db8::ffff:2')]).toEqual([200, 200]);
    expect(await ask('2001:db8:0:0:9::')).toBe(429);
    expect(await ask('2001:db8:0:1::1')).toBe(200);
  });

  it('opens streams at a rate, and calls as it likes', async () => {
    const port = await start({ TRUST_PROXY: '1', ADDRESS_RATE: '1', ADDRESS_BURST: '1' });
    const lines = Array.from({ length: 30 }, () => new Line(port, get('/v1/stream', from(ANN))));
    expect(new Set(await statuses(lines))).toEqual(new Set([200, 429]));
    const refused = lines.find(({ heard }) => heard.startsWith('HTTP/1.1 429'));
    expect(Number(refused?.header('retry-after'))).toBe(1);
    for (let i = 0; i < 5; i++) expect(await new Line(port, get('/', from(ANN))).status()).toBe(200);
  });
});
