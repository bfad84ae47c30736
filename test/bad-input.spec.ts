import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { formatCursor, isProblemCode, PROBLEMS, type ProblemCode, parsePosition } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import fc from 'fast-check';
import { CourierSocket, call, type Frame } from './support/courier-client.js';
import { EventStreamClient } from './support/event-source.js';
import { Poller } from './support/poller.js';
import { OP, RawSocket, rawFrame, sendRaw } from './support/raw.js';
import { createTenant, seconds, type Tenant } from './support/tenant.js';

/** A mark in tokens' claims and in payloads: it must never be seen in a log. */
const MARK = 'secret-mark-5f2c';

let cluster: TestCluster;
let tenant: Tenant;
let base: string;
let port: number;
/** Every token and key that was handed to the gateway. */
const credentials: string[] = [];

beforeAll(async () => {
  cluster = await startCluster({ env: { LOG_LEVEL: 'trace', BUS_TIMEOUT: '1s', BUS_CACHE: '60s' } });
  tenant = await createTenant(cluster, 'acme');
  base = cluster.gatewayUrls[0]!;
  port = Number(new URL(base).port);
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function tokenOf(role: 'user' | 'service' | 'admin'): Promise<string> {
  // Issued late enough for none of the revocations that are tried here to end it.
  const token = await tenant.token(role, { role, note: MARK, iat: seconds() + 3_600 });
  credentials.push(token);
  return token;
}

async function signedUrl(): Promise<string> {
  const { body } = await call(base, await tokenOf('user'), 'GET', '/v1/sign');
  credentials.push(body.key);
  return body.url;
}

/** What every answer that is no success must be, whoever wrote it. */
function expectProblem(status: number, contentType: string | null | undefined, body: string): ProblemCode {
  expect(contentType).toMatch(/^application\/problem\+json/);
  const { type, title, status: told, detail, code } = JSON.parse(body);
  expect(isProblemCode(code)).toBe(true);
  expect({ type, title, told }).toEqual({
    type: `urn:posthorn:problem:${code}`,
    title: PROBLEMS[code as ProblemCode].title,
    told: status,
  });
  expect(detail).toEqual(expect.any(String));
  expect(body).not.toMatch(/\bat .+:\d+:\d+|node_modules|\.[jt]s:\d/);
  expect(code).not.toBe('internal');
  return code;
}

describe('requests that no HTTP client would send', () => {
  const hook = '{"topic":"a","action":"publish","message":{}}';
  const post = (headers: string, body: string) =>
    `POST /v1/hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${headers}\r\n${body}`;
  const get = (target: string, headers = '') => `GET ${target} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;
  const upgrade =
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n';

  it.each<[string, string, ProblemCode]>([
    ['a TLS handshake', '\x16\x03\x01\x02\x00\r\n\r\n', 'request_invalid'],
    ['an HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'request_invalid'],
    ['a header without a colon', 'GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n', 'request_invalid'],
    ['40 KB of headers', get('/', `X: ${'x'.repeat(40_000)}\r\n`), 'payload_too_large'],
    ['an unknown method', 'FOO /v1/topic HTTP/1.1\r\nHost: x\r\n\r\n', 'request_invalid'],
    ['a method without a call', 'TRACE /v1/topic HTTP/1.1\r\nHost: x\r\n\r\n', 'route_not_found'],
    ['percent signs that encode nothing', get('/v1/%zz'), 'request_invalid'],
    ['percent signs that are no UTF-8', get('/v1/communities/%ff/managers'), 'request_invalid'],
    [
      'an endless parameter',
      get(`/v1/communities/${'a'.repeat(5_000)}/managers`).replace('GET', 'PUT'),
      'request_invalid',
    ],
    ['a target that is no URL', get('http://['), 'request_invalid'],
    ['two slashes', get('//'), 'route_not_found'],
    ['two lengths', post('Content-Length: 4\r\nContent-Length: 5\r\n', hook), 'request_invalid'],
    ['a negative length', post('Content-Length: -4\r\n', hook), 'request_invalid'],
    ['a length of exabytes', post('Content-Length: 99999999999999999\r\n', hook), 'payload_too_large'],
    [
      'a length and chunks',
      post('Content-Length: 4\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
      'request_invalid',
    ],
    ['a chunk without a size', post('Transfer-Encoding: chunked\r\n', 'ZZ\r\n'), 'request_invalid'],
    [
      'another content type',
      `${post('Content-Length: 2\r\n', '{}').replace('/json', '/xml')}`,
      'request_invalid',
    ],
    ['no token', get('/v1/topic'), 'unauthorized'],
    ['an upgrade of two slashes', get('//', upgrade), 'route_not_found'],
    ['an upgrade of what is no URL', get('http://[', upgrade), 'route_not_found'],
    ['an upgrade without a key', get('/ws', upgrade), 'unauthorized'],
    ['an upgrade with an endless key', get(`/ws?token=${'k'.repeat(30_000)}`, upgrade), 'unauthorized'],
  ])('%s: a problem document, and the connection ends', async (_, bytes, code) => {
    const answer = await sendRaw(port, bytes);
    expect(expectProblem(answer!.status, answer!.headers['content-type'], answer!.body)).toBe(code);
  });

  it('a refused upgrade is hung up on, also when the peer keeps its side open', async () => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => {});
    socket.resume();
    socket.write(get('/ws', upgrade));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    await once(socket, 'end');
    // Whoever only closed its own side would go on taking these.
    const sending = setInterval(() => socket.write('x'), 10);
    await closed;
    clearInterval(sending);
  });

  it('an upgrade that the WebSocket protocol does not know is refused in the same form', async () => {
    const { pathname, search } = new URL(await signedUrl());
    const answer = await sendRaw(port, get(pathname + search, upgrade.replace('Version: 13', 'Version: 99')));
    expect(expectProblem(answer!.status, answer!.headers['content-type'], answer!.body)).toBe(
      'request_invalid',
    );
  });

  it('an offer of HTTP/2 with a call is passed over, and the call is served', async () => {
    const auth = `Authorization: Bearer ${await tokenOf('service')}\r\n`;
    const offer =
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n';
    const answer = await sendRaw(port, post(`${auth}${offer}Content-Length: ${hook.length}\r\n`, hook));
    expect({ status: answer?.status, body: answer?.body }).toEqual({ status: 200, body: hook });
  });

  it('a body in chunks, and calls in one go on one connection, are served in order', async () => {
    const auth = `Authorization: Bearer ${await tokenOf('service')}\r\n`;
    const chunks = `5\r\n${hook.slice(0, 5)}\r\n${(hook.length - 5).toString(16)}\r\n${hook.slice(5)}\r\n0\r\n\r\n`;
    const chunked = await sendRaw(port, post(`${auth}Transfer-Encoding: chunked\r\n`, chunks));
    expect(chunked?.body).toBe(hook);
    const pipelined = await sendRaw(
      port,
      get('/v1/nothing') + post(`${auth}Content-Length: ${hook.length}\r\nConnection: close\r\n`, hook),
    );
    expect(pipelined?.status).toBe(404);
  });
});

describe('calls with any input', () => {
  const odd = fc.oneof(
    fc.constantFrom(
      '',
      ' ',
      '\0',
      '..',
      '%00',
      '__proto__',
      'constructor',
      '\u{1F600}'.repeat(80),
      '\uD800',
      'a'.repeat(300),
      '-1',
      '1e309',
      '0x10',
      'NaN',
      'true',
      'null',
      'user:bob',
      'community:join',
      '>',
      '*',
    ),
    fc.string({ unit: 'binary', maxLength: 20 }),
  );
  const anyKey = fc.oneof(
    odd,
    fc.constantFrom(
      'topic',
      'action',
      'message',
      'scope',
      'schema',
      'retention',
      'durable',
      'managers',
      'members',
      'tokenId',
      'sub',
      'issuedBefore',
      'target',
      'then',
      'toJSON',
    ),
  );
  const anyValue = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, depthSize: 'small' },
      odd,
      fc.double(),
      fc.constantFrom(null, true, 0, -1, 1e21, 'publish', 'broadcast', 'local', 'global', MARK),
      fc.array(tie('value'), { maxLength: 4 }),
      fc.dictionary(anyKey, tie('value'), { maxKeys: 6 }),
    ),
  })).value;
  const nested = fc.nat(5_000).map((depth) => `${'['.repeat(depth)}${']'.repeat(depth)}`);
  const body = fc.oneof(
    { weight: 1, arbitrary: fc.constant(undefined) },
    { weight: 6, arbitrary: anyValue.map((value) => JSON.stringify(value) ?? '') },
    {
      weight: 6,
      arbitrary: fc
        .record(
          {
            topic: odd,
            action: fc.constantFrom('publish', 'broadcast'),
            message: anyValue,
            scope: odd,
            schema: anyValue,
          },
          { requiredKeys: [] },
        )
        .map((value) => JSON.stringify(value)),
    },
    { weight: 2, arbitrary: nested.map((value) => `{"message":${value},"topic":"a","action":"publish"}`) },
    { weight: 1, arbitrary: odd },
  );
  const id = odd.map((value) => encodeURIComponent(value.toWellFormed()));
  const path = fc.oneof(
    fc.constantFrom(
      '/v1/audience',
      '/v1/topic',
      '/v1/hook',
      '/v1/sign',
      '/v1/revocations',
      '/v1/notifications',
      '/health/live',
      '/health/%72eady',
      '/metrics',
    ),
    id.map((community) => `/v1/communities/${community}/managers`),
    id.map((community) => `/v1/communities/${community}/members`),
    id.map((rest) => `/${rest}`),
  );
  const query = fc
    .array(fc.tuple(fc.constantFrom('read', 'limit', 'cursor', 'for', 'read[]', '__proto__', 'token'), odd), {
      maxLength: 4,
    })
    .map((pairs) =>
      pairs.map(([name, value]) => `${name}=${encodeURIComponent(value.toWellFormed())}`).join('&'),
    );
  const headers = fc.record(
    {
      'idempotency-key': fc.string({
        unit: fc.constantFrom('a', ' ', '\t', 'é', '~', '"', ','),
        maxLength: 300,
      }),
      traceparent: fc.constantFrom(
        'x',
        `00-${'0'.repeat(32)}-${'0'.repeat(16)}-00`,
        `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`,
      ),
      'content-type': fc.constantFrom(
        'application/json',
        'application/json; charset=latin1',
        'text/plain',
        ';',
        'application/vnd.x+json',
      ),
      origin: fc.constantFrom('null', 'http://evil.example'),
      'x-forwarded-for': fc.constantFrom('1.2.3.4', ',,,'),
    },
    { requiredKeys: [] },
  );

  it('are answered with a success or a problem of the catalogue, never with a failure of ours', async () => {
    const tokens = [undefined, ...(await Promise.all((['user', 'service', 'admin'] as const).map(tokenOf)))];
    const request = fc.record({
      method: fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD'),
      path,
      query,
      headers,
      body,
      token: fc.nat(tokens.length - 1),
    });
    await fc.assert(
      fc.asyncProperty(request, async ({ method, path, query, headers, body, token }) => {
        const jwt = tokens[token];
        const answer = await fetch(`${base}${path}?${query}`, {
          method,
          headers: {
            'content-type': 'application/json',
            ...headers,
            ...(jwt === undefined ? {} : { authorization: `Bearer ${jwt}` }),
          },
          ...(body === undefined || method === 'GET' || method === 'HEAD' ? {} : { body }),
        });
        const text = await answer.text();
        if (answer.ok) return;
        if (method === 'HEAD') expect(answer.status).toBeLessThan(500);
        else expectProblem(answer.status, answer.headers.get('content-type'), text);
      }),
      { numRuns: 1_500 },
    );
  }, 30_000);

  it('say of a query what is wrong with it, also when a parameter comes twice', async () => {
    const user = await tokenOf('user');
    for (const [query, paths] of [
      ['read=a&read=b&limit=1&limit=2&cursor=x&cursor=y', ['/read', '/limit', '/cursor']],
      ['limit=0x10', ['/limit']],
      ['limit=1e1', ['/limit']],
      ['limit=%2010', ['/limit']],
      ['limit=0', ['/limit']],
    ] as const) {
      const { status, body } = await call(base, user, 'GET', `/v1/notifications?${query}`);
      expect({ query, status, paths: body.errors?.map(({ path }: { path: string }) => path) }).toEqual({
        query,
        status: 422,
        paths,
      });
    }
    expect((await call(base, user, 'GET', '/v1/sign?for=stream&for=socket')).status).toBe(422);
  });
});

describe('frames with any input', () => {
  const text = fc.oneof(
    fc.constantFrom(
      'a',
      'a b',
      '>',
      '*',
      'a.*',
      'user:user',
      'user:\uD800',
      '__proto__',
      '__broadcast__',
      '',
      '\0',
      'x'.repeat(500),
    ),
    fc.string({ unit: 'binary', maxLength: 10 }),
  );
  const frame = fc.record(
    {
      action: fc.constantFrom('subscribe', 'unsubscribe', 'publish', 'broadcast', 'auth', 'ping'),
      topic: text,
      message: fc.oneof(fc.constant({ note: MARK }), fc.dictionary(text, fc.jsonValue())),
      token: text,
      id: text,
      since: text,
    },
    { requiredKeys: ['action', 'topic', 'message', 'token'] },
  );

  it('are answered, and leave the socket open or close it for a reason of the protocol', async () => {
    let socket = await CourierSocket.open(base, await tokenOf('user'));
    let n = 0;
    await fc.assert(
      fc.asyncProperty(frame, async (value) => {
        if (socket.closed) socket = await CourierSocket.open(base, await tokenOf('user'));
        const ref = String(++n);
        const from = socket.frames.length;
        socket.send({ ...value, ref });
        if (value.action === 'ping' || value.action === 'auth') return;
        const answer = await socket
          .find((seen) => seen.ref === ref, from)
          .catch(() => ({ action: 'closed', code: socket.closed?.code }));
        expect(['subscribed', 'unsubscribed', 'published', 'error', 'closed']).toContain(answer.action);
        if (answer.action === 'error') expect(answer.code).not.toBe('internal');
        if (answer.action === 'closed') expect(answer.code).toBe(1008);
      }),
      { numRuns: 500 },
    );
    await socket[Symbol.asyncDispose]();
  }, 30_000);

  const publish = '{"action":"publish","topic":"a","message":{},"ref":"r"}';
  it.each<[string, number, Buffer[]]>([
    ['an unmasked frame', 1002, [rawFrame(OP.text, publish, { masked: false })]],
    ['a compressed frame', 1002, [rawFrame(OP.text, publish, { rsv1: true })]],
    ['a reserved opcode', 1002, [rawFrame(OP.reserved, publish)]],
    ['a continuation of nothing', 1002, [rawFrame(OP.continuation, publish)]],
    ['a ping in two parts', 1002, [rawFrame(OP.ping, 'a', { fin: false })]],
    ['a ping of 126 bytes', 1002, [rawFrame(OP.ping, 'x'.repeat(126))]],
    ['text that is no UTF-8', 1007, [rawFrame(OP.text, Uint8Array.of(0x22, 0xff, 0x22))]],
    ['a close code that nobody may send', 1002, [rawFrame(OP.close, Uint8Array.of(0x03, 0xee))]],
    ['a frame of 70,000 bytes', 1009, [rawFrame(OP.text, 'x'.repeat(70_000))]],
    [
      'a message in thousands of parts',
      1008,
      [
        rawFrame(OP.text, '{', { fin: false }),
        ...Array.from({ length: 5_000 }, () => rawFrame(OP.continuation, ' ', { fin: false })),
      ],
    ],
  ])('%s ends the connection with %i', async (_, code, frames) => {
    await using socket = await RawSocket.open(await signedUrl());
    socket.send(...frames);
    expect(await socket.closeCode()).toBe(code);
  });

  it('in a few parts, with control frames between them, are put together', async () => {
    await using socket = await RawSocket.open(await signedUrl());
    socket.send(
      rawFrame(OP.text, publish.slice(0, 10), { fin: false }),
      rawFrame(OP.ping, 'between'),
      rawFrame(OP.continuation, publish.slice(10, 20), { fin: false }),
      rawFrame(OP.continuation, publish.slice(20)),
    );
    const seen: string[] = [];
    while (seen.length < 3) {
      const { op, payload } = (await socket.next())!;
      seen.push(op === OP.text ? JSON.parse(payload.toString()).action : `${op}:${payload}`);
    }
    expect(seen.sort()).toEqual([`${OP.pong}:between`, 'published', 'welcome']);
  });
});

describe('a place in the stream that is none of the client’s', () => {
  interface Resumed {
    readonly recovered: boolean;
    readonly titles: readonly string[];
  }
  type Face = (sub: string, place: string) => Promise<Resumed | ProblemCode>;

  const GENERAL = '__general__';
  /** The last of what a client may have: who has it has all. */
  const END = 'end';
  const keyOf = async (sub: string) =>
    (await (await tenant.as(sub))('GET', '/v1/sign?for=stream')).body.key as string;

  async function streamed(path: string, authorization: string | undefined, lastEventId: string) {
    await using stream = await EventStreamClient.open(base + path, {
      lastEventId,
      headers: authorization === undefined ? {} : { authorization: `Bearer ${authorization}` },
    });
    if (stream.status !== 200) {
      await stream.end();
      return expectProblem(stream.status, stream.headers['content-type'], stream.body);
    }
    await stream.until(() => stream.events.some(({ data }) => data.includes(`"${END}"`)));
    // Broadcasts of other tests come too.
    const messages = stream.events.filter(({ name }) => [GENERAL, 'public_announcement'].includes(name));
    return {
      recovered: !stream.events.some(({ name }) => name === 'recovered'),
      titles: messages.map(({ data }) => JSON.parse(data).title),
    };
  }

  const FACES: Readonly<Record<string, Face>> = {
    'a poll': async (sub, last) => {
      const token = await tenant.token(sub);
      const poller = new Poller({ urls: [base], database: 'acme', token, channels: [GENERAL], last });
      const titles: string[] = [];
      let recovered = true;
      do {
        const { status, body } = await poller.poll();
        if (status !== 200) return body.code;
        if (body.recovered === false) recovered = false;
        titles.push(body.message.title);
      } while (titles.at(-1) !== END);
      return { recovered, titles };
    },
    'a stream that comes again': async (sub, last) =>
      streamed(`/v1/stream?topics=${GENERAL}`, await tenant.token(sub), last),
    'a stream since': async (sub, since) =>
      streamed(
        `/v1/stream?topics=${GENERAL}&since=${encodeURIComponent(since)}`,
        await tenant.token(sub),
        '',
      ),
    'a status page that comes again': async (sub, last) =>
      streamed(`/status/${await keyOf(sub)}`, undefined, last),
    'a status page since': async (sub, since) =>
      streamed(`/status/${await keyOf(sub)}?since=${encodeURIComponent(since)}`, undefined, ''),
    'a socket': async (sub, since) => {
      await using socket = await CourierSocket.open(base, await tenant.token(sub));
      socket.send({ action: 'subscribe', topic: GENERAL, since, ref: 'r' });
      const answer = await socket
        .find(({ ref }) => ref === 'r')
        .catch(() => ({ action: 'error', code: socket.closed?.code }));
      if (answer.action === 'error') return answer.code as ProblemCode;
      const title = (frame: Frame) => (frame.message as { title: string }).title;
      await socket.find((frame) => frame.action === 'message' && title(frame) === END);
      return {
        recovered: (answer as { recovered?: unknown }).recovered === true,
        titles: socket.frames.filter(({ action }) => action === 'message').map(title),
      };
    },
  };
  const faces = Object.keys(FACES);
  const general = (title: string) => ({ title, message: '', system: false });
  /** Where events of two audiences came to be, by their titles. */
  const places: Record<string, string> = {};

  beforeAll(async () => {
    const globex = await createTenant(cluster, 'globex');
    const publish = async (
      { service }: Tenant,
      topic: string,
      message: ReturnType<typeof general> & { username?: string },
    ) => {
      const { headers } = await service('POST', '/v1/hook', { topic, action: 'publish', message });
      places[message.title] = headers.get('posthorn-position')!;
    };
    await publish(tenant, GENERAL, general('first'));
    await publish(globex, GENERAL, general('secret'));
    await publish(tenant, GENERAL, general('second'));
    await publish(tenant, 'personal.bob', { username: 'bob', ...general('private') });
    await publish(globex, GENERAL, general('secret too'));
    await publish(tenant, GENERAL, general(END));
  });

  it.each(faces)('of another audience’s event: %s goes on with its own events behind it', async (face) => {
    for (const [place, titles] of [
      ['first', ['second', END]],
      ['secret', ['second', END]],
      ['secret too', [END]],
    ] as const) {
      expect(await FACES[face]!('ann', places[place]!)).toEqual({ recovered: true, titles });
    }
  });

  it.each(faces)('of topics that it may not have: %s gets none of them, and all of its own', async (face) => {
    const from = parsePosition(places.first!)!;
    const past = parsePosition(places.end!)!.sequence;
    for (const path of ['bob.personal', '-.login.failure', '-.of-globex', 'ann.user']) {
      const place = formatCursor({ ...from, beyond: new Map([[path, past]]) });
      expect(await FACES[face]!('ann', place)).toEqual({ recovered: true, titles: ['second', END] });
    }
  });

  it.each(faces)(
    'of another stream, or beyond the end of this one: %s is told, and begins anew',
    async (face) => {
      const { epoch, sequence } = parsePosition(places.end!)!;
      for (const place of [
        'abcz1-5',
        'abcz1-0~1.-.__general__',
        `${epoch}-${sequence + 1_000}`,
        formatCursor({ epoch, sequence: 0, beyond: new Map([['-.elsewhere', sequence + 1_000]]) }),
      ]) {
        expect(await FACES[face]!('ann', place)).toEqual({
          recovered: false,
          titles: ['first', 'second', END],
        });
      }
    },
  );

  const garbage = [
    '~',
    '-',
    '9'.repeat(100),
    'a-1-1',
    'a--1',
    'a-1~',
    'a-1~0.-.x',
    'a-1~1.x..y',
    'a-1~1.-.b~1.-.a',
    `a-${2 ** 53}`,
    '__proto__',
    '-1',
    'x'.repeat(8_193),
    `a-1${Array.from({ length: 129 }, (_, i) => `~1.-.t${100 + i}`).join('')}`,
  ];

  it.each(faces)('that is no place at all: %s is told, and nothing breaks', async (face) => {
    const begins = face === 'a poll' || face.endsWith('again');
    const expected = begins ? { recovered: false, titles: ['first', 'second', END] } : 'request_invalid';
    for (const place of garbage) expect([place, await FACES[face]!('ann', place)]).toEqual([place, expected]);
  });

  it.each([
    ['a poll', { recovered: false, titles: ['first', 'second', END] }],
    ['a stream that comes again', 'payload_too_large'],
    ['a stream since', 'payload_too_large'],
    ['a status page that comes again', 'payload_too_large'],
    ['a status page since', 'payload_too_large'],
    ['a socket', 1009],
  ])('of 1 MiB: %s answers', async (face, expected) => {
    expect(await FACES[face]!('ann', 'x'.repeat(1_048_576))).toEqual(expected);
  });
});

describe('too many topics, or none', () => {
  it('are refused by a poll and a stream', async () => {
    const token = await tokenOf('user');
    const many = Array.from({ length: 10_000 }, (_, i) => `c${i}`);
    for (const channels of [many, 'a', { 0: 'a' }, null, 5, [null], [5], [['a']], [{}], [''], ['a b']]) {
      const { status, headers, body } = await call(base, token, 'POST', '/acme/bus', { channels });
      const code = expectProblem(status, headers.get('content-type'), JSON.stringify(body));
      expect({ channels, code }).toEqual({ channels, code: 'request_invalid' });
    }
    for (const body of [
      '',
      '{',
      'null',
      '[]',
      '5',
      '"{}"',
      '{"channels":["a"]',
      '\u0000',
      '{"channels":[]}}',
    ]) {
      const { status, headers, body: told } = await call(base, token, 'POST', '/acme/bus', body);
      const code = expectProblem(status, headers.get('content-type'), JSON.stringify(told));
      expect({ body, code }).toEqual({ body, code: 'request_invalid' });
    }
    for (const [topics, code] of [
      [many.slice(0, 1_000).join(','), 'subscription_limit'],
      [many.join(','), 'payload_too_large'],
      [',', 'request_invalid'],
      ['%00', 'request_invalid'],
      ['a'.repeat(201), 'request_invalid'],
    ]) {
      const { status, headers, body } = await call(base, token, 'GET', `/v1/stream?topics=${topics}`);
      expect(expectProblem(status, headers.get('content-type'), JSON.stringify(body))).toBe(code);
    }
  });
});

describe('afterwards', () => {
  it('nothing has failed: no process ended, and no log holds an error, a credential or a payload', async () => {
    for (const apps of Object.values(cluster.apps)) {
      for (const app of apps) {
        const log = readFileSync(app.logFile, 'utf8');
        expect(await app.isReady()).toBe(true);
        expect(log).not.toContain('unhandled');
        expect(log.split('\n').filter((line) => /"level":"(?:error|fatal)"/.test(line))).toEqual([]);
        expect(log).not.toContain(MARK);
        expect(log).not.toContain(new URL(cluster.databaseUrl).password);
        for (const secret of Object.values(cluster.secrets)) expect(log).not.toContain(secret);
        for (const line of log.trim().split('\n')) {
          expect(JSON.parse(line)).toMatchObject({
            time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
            level: expect.stringMatching(/^(?:trace|debug|info|warn)$/),
            app: app.name,
            msg: expect.any(String),
          });
        }
        for (const credential of credentials) {
          // Of a JWT the signature, of a key the ciphertext: what comes before is the same in all of them.
          expect(log.includes(credential.split('.').at(-1)!)).toBe(false);
        }
      }
    }
    const metrics = await (await fetch(`${base}/metrics`)).text();
    expect(metrics).not.toContain(MARK);
    expect(metrics).toMatch(/^posthorn_problems_total\{.*code="internal".*\} 0$/m);
  });
});
