import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { type Answer, CourierSocket, call, refusedUpgrade } from './support/courier-client.js';
import { createTenant, seconds as now } from './support/tenant.js';

let cluster: TestCluster;
let base: string;

beforeAll(async () => {
  cluster = await startCluster();
  base = cluster.gatewayUrls[0]!;
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

let tenants = 0;
/** A fresh audience. */
const tenant = () => createTenant(cluster, `tenant-${++tenants}`);

function expectProblem({ status, headers, body }: Answer, code: string, wanted: number): void {
  expect({ status, code: body.code }).toEqual({ status: wanted, code });
  expect(headers.get('content-type')).toMatch(/^application\/problem\+json/);
  expect(body).toMatchObject({ type: expect.any(String), title: expect.any(String), status: wanted });
  expect(JSON.stringify(body)).not.toMatch(/\.ts:|\.js:|node_modules| at /);
}

describe('audiences and topics', () => {
  it('creates the audience of the token once, and answers with the same afterwards', async () => {
    const jwt = await cluster.token({ aud: 'once', sub: 'a', exp: now() + 60 });
    const first = await call(base, jwt, 'POST', '/v1/audience');
    const second = await call(base, jwt, 'POST', '/v1/audience', '', { 'content-type': 'application/json' });
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(first.body).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      name: 'once',
      created_at: expect.any(String),
      updated_at: expect.any(String),
    });
    expect(second.body).toEqual(first.body);
  });

  it('knows nothing of an audience that was not created', async () => {
    const jwt = await cluster.token({ aud: 'nobody', sub: 'a', role: 'service', exp: now() + 60 });
    for (const [method, path, body] of [
      ['GET', '/v1/sign'],
      ['GET', '/v1/topic'],
      ['POST', '/v1/topic', { topic: 'a' }],
      ['POST', '/v1/hook', { topic: 'a', action: 'publish', message: {} }],
      ['GET', '/v1/notifications'],
    ] as const) {
      expectProblem(await call(base, jwt, method, path, body), 'audience_not_found', 404);
    }
  });

  it('registers a topic, repeats it, refuses another name for its subject, and lists only its own', async () => {
    const one = await tenant();
    const other = await tenant();
    const made = await one.service('POST', '/v1/topic', { topic: 'system/events' });
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({
      topic: 'system/events',
      audience: one.audience,
      audienceId: expect.any(String),
    });
    expect(made.body).not.toHaveProperty('path');
    expect((await one.service('POST', '/v1/topic', { topic: 'system/events' })).status).toBe(200);
    expectProblem(await one.service('POST', '/v1/topic', { topic: 'system.events' }), 'topic_conflict', 409);
    expect((await one.service('GET', '/v1/topic')).body).toEqual([made.body]);
    expect((await other.service('GET', '/v1/topic')).body).toEqual([]);
  });

  it('lets a user register a bare topic, and nothing that is reserved or for services', async () => {
    const { as } = await tenant();
    const user = await as('ann');
    expect((await user('POST', '/v1/topic', { topic: 'chat/lobby' })).status).toBe(201);
    for (const topic of ['user:bob', 'personal.bob', 'community:join', 'community/anything']) {
      expectProblem(await user('POST', '/v1/topic', { topic }), 'forbidden', 403);
    }
    for (const property of [{ schema: {} }, { retention: 3600 }, { durable: false }]) {
      expectProblem(await user('POST', '/v1/topic', { topic: 'x', ...property }), 'forbidden', 403);
    }
  });

  it('refuses a payload that breaks the schema of its topic, on REST and on the socket', async () => {
    const { service, socket } = await tenant();
    const schema = { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } };
    expect((await service('POST', '/v1/topic', { topic: 'counted', schema })).status).toBe(201);
    const hook = (message: object) =>
      service('POST', '/v1/hook', { topic: 'counted', action: 'publish', message });
    const refused = await hook({ n: 'many' });
    expectProblem(refused, 'payload_invalid', 422);
    expect(refused.body.errors).toEqual([{ path: '/n', message: expect.any(String) }]);
    expect((await hook({ n: 1 })).status).toBe(200);
    await using ann = await socket('ann');
    ann.send({ action: 'publish', topic: 'counted', message: {}, ref: 'p' });
    expect(await ann.next('error', 'p')).toMatchObject({ code: 'payload_invalid' });
  });
});

describe('POST /v1/hook', () => {
  it('answers with the same object and the position, once the event is stored', async () => {
    const { service } = await tenant();
    const body = { topic: 'system/events', action: 'publish', message: { type: 'database' }, extra: [1] };
    const { status, headers, body: answer } = await service('POST', '/v1/hook', body);
    expect(status).toBe(200);
    expect(answer).toEqual(body);
    expect(headers.get('posthorn-position')).toMatch(/^[0-9a-z]+-[1-9][0-9]*$/);
  });

  it('stores the same idempotency key once, for each publisher, and tells another payload apart', async () => {
    const { service, as } = await tenant();
    const hook = (message: object, who = service) =>
      who('POST', '/v1/hook', { topic: 'orders', action: 'publish', message }, { 'idempotency-key': 'k-1' });
    const first = await hook({ n: 1 });
    const second = await hook({ n: 1 });
    expect(second.headers.get('posthorn-position')).toBe(first.headers.get('posthorn-position'));
    expectProblem(await hook({ n: 2 }), 'idempotency_conflict', 409);
    const somebodyElse = await hook({ n: 2 }, await as('ann'));
    expect(somebodyElse.headers.get('posthorn-position')).not.toBe(first.headers.get('posthorn-position'));
  });

  it.each([
    ['no body', undefined, ''],
    ['a body that is not JSON', '{', ''],
    ['an array', '[]', ''],
    ['no topic', { action: 'publish', message: {} }, '/topic'],
    ['an unknown action', { topic: 'a', action: 'shout', message: {} }, '/action'],
    ['a message that is an array', { topic: 'a', action: 'publish', message: [] }, '/message'],
    ['a message that is null', { topic: 'a', action: 'publish', message: null }, '/message'],
    ['an unknown scope', { topic: 'a', action: 'publish', message: {}, scope: 'moon' }, '/scope'],
    ['a topic with a space', { topic: 'a b', action: 'publish', message: {} }, '/topic'],
    ['a topic with a wildcard', { topic: 'a/*', action: 'publish', message: {} }, '/topic'],
    ['an empty segment', { topic: 'a//b', action: 'publish', message: {} }, '/topic'],
  ])('answers %s with 422 and says where', async (_, body, path) => {
    const { service } = await tenant();
    const answer = await service('POST', '/v1/hook', body);
    expectProblem(answer, 'request_invalid', 422);
    expect(answer.body.errors?.[0]?.path ?? '').toBe(path);
  });

  it('takes a megabyte from a service and 64 KiB from a user', async () => {
    const { service, as } = await tenant();
    const user = await as('ann');
    const body = (bytes: number) => ({
      topic: 'big',
      action: 'publish',
      message: { x: 'x'.repeat(bytes - 8) },
    });
    expect((await service('POST', '/v1/hook', body(1_048_576))).status).toBe(200);
    expectProblem(await service('POST', '/v1/hook', body(1_048_577)), 'payload_too_large', 413);
    expectProblem(await service('POST', '/v1/hook', body(3_000_000)), 'payload_too_large', 413);
    expect((await user('POST', '/v1/hook', body(65_536))).status).toBe(200);
    expectProblem(await user('POST', '/v1/hook', body(65_537)), 'payload_too_large', 413);
  });

  it('keeps users away from platform topics, local scope and the topics of others', async () => {
    const { as } = await tenant();
    const user = await as('ann');
    const join = { author: 'a', target: 'b', community: 'c' };
    for (const [topic, message] of [
      ['community:join', join],
      ['community/join', join],
      ['personal.bob', {}],
      ['user:bob', {}],
      ['user:ann', {}],
      ['usernotification:created', { target: 'ann' }],
      ['__general__', {}],
      ['room/session/1/hello', {}],
    ] as const) {
      expectProblem(await user('POST', '/v1/hook', { topic, action: 'publish', message }), 'forbidden', 403);
    }
    const local = { topic: 'a', action: 'publish', message: {}, scope: 'local' };
    expectProblem(await user('POST', '/v1/hook', local), 'forbidden', 403);
  });
});

describe('tokens', () => {
  const enc = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');

  it('are refused when they are missing, forged, expired, or for nobody', async () => {
    const { audience: aud } = await tenant();
    const exp = now() + 60;
    const good = await cluster.token({ aud, sub: 'a', exp });
    const [header, payload] = good.split('.');
    const none = `${enc({ alg: 'none', typ: 'JWT' })}.${payload}.`;
    for (const token of [
      undefined,
      'abc',
      none,
      `${header}.${payload}.`,
      `${good.slice(0, -4)}AAAA`,
      `${header}.${enc({ aud, sub: 'root', role: 'admin', exp })}.${good.split('.')[2]}`,
      await cluster.token({ aud: '', sub: 'a', exp }),
      await cluster.token({ aud: [aud, 'other'] as unknown as string, sub: 'a', exp }),
      await cluster.token({ sub: 'a', exp, aud: undefined }),
    ]) {
      expectProblem(await call(base, token, 'GET', '/v1/topic'), 'unauthorized', 401);
    }
    const expired = await cluster.token({ aud, sub: 'a', exp: now() - 1 });
    expectProblem(await call(base, expired, 'GET', '/v1/topic'), 'token_expired', 401);
  });

  it('end when they are revoked, on REST and on open sockets', async () => {
    const { as, socket, token } = await tenant();
    const admin = await as('root', { role: 'admin' });
    await using ann = await socket('ann', { jti: 'j-1', iat: now() - 10 });
    await using bob = await socket('bob', { iat: now() - 10 });
    const jwt = await token('ann', { jti: 'j-1', iat: now() - 10 });
    expectProblem(await (await as('ann'))('POST', '/v1/revocations', { tokenId: 'j-1' }), 'forbidden', 403);
    expect((await admin('POST', '/v1/revocations', { tokenId: 'j-1' })).status).toBe(200);
    expect(await ann.next('error')).toMatchObject({ code: 'unauthorized' });
    expect((await ann.end()).code).toBe(4401);
    expectProblem(await call(base, jwt, 'GET', '/v1/topic'), 'unauthorized', 401);
    expectProblem(await call(base, jwt, 'GET', '/v1/sign'), 'unauthorized', 401);
    await bob.settle();
    expect(bob.closed).toBeUndefined();
  });

  it('do not all end because the one that was meant is misspelled', async () => {
    const { as, token } = await tenant();
    const admin = await as('root', { role: 'admin' });
    const jwt = await token('ann', { jti: 'j-1', iat: now() - 10 });
    for (const body of [{ tokenID: 'j-1' }, { tokenId: null }, { sub: null, issuedBefore: 0 }]) {
      expectProblem(await admin('POST', '/v1/revocations', body), 'request_invalid', 422);
    }
    expect((await call(base, jwt, 'GET', '/v1/topic')).status).toBe(200);
  });
});

describe('the way to a socket', () => {
  it('is a key of GET /v1/sign, in the query or as a subprotocol', async () => {
    const { as } = await tenant();
    const { status, body } = await (await as('ann'))('GET', '/v1/sign');
    expect(status).toBe(200);
    expect(body.url).toBe(`${base.replace('http', 'ws')}/ws?token=${body.key}`);
    await using byQuery = new CourierSocket(body.url);
    await byQuery.next('welcome');
    await using bySubprotocol = new CourierSocket(`${base.replace('http', 'ws')}/ws`, [
      'posthorn.v1',
      `posthorn.key.${body.key}`,
    ]);
    await bySubprotocol.next('welcome');
    expect(bySubprotocol.socket.protocol).toBe('posthorn.v1');
  });

  it('is refused at the upgrade without a key, with a forged one, a JWT, or a key for streams', async () => {
    const { as, token } = await tenant();
    const ann = await as('ann');
    const { key } = (await ann('GET', '/v1/sign')).body;
    const stream = (await ann('GET', '/v1/sign?for=stream')).body.key;
    const ws = `${base.replace('http', 'ws')}/ws`;
    const forged = key.slice(0, -6) + (key.endsWith('AAAAAA') ? 'BBBBBB' : 'AAAAAA');
    for (const bad of [
      '',
      '?token=',
      '?token=abc',
      `?token=${forged}`,
      `?token=${await token('ann')}`,
      `?token=${stream}`,
    ]) {
      expect(await refusedUpgrade(ws + bad)).toBe(401);
    }
    expect(await refusedUpgrade(`${base.replace('http', 'ws')}/elsewhere?token=${key}`)).toBe(404);
  });

  it('says of ?for= what it wants', async () => {
    const { as } = await tenant();
    expectProblem(await (await as('ann'))('GET', '/v1/sign?for=fun'), 'request_invalid', 422);
  });
});

describe('a socket', () => {
  it('receives what is published after subscribed, in order, also what it publishes itself', async () => {
    const { socket, service } = await tenant();
    await using ann = await socket('ann');
    ann.send({ action: 'subscribe', topic: 'system/events', ref: 's' });
    for (let n = 0; n < 50; n++)
      ann.send({ action: 'publish', topic: 'system/events', message: { n }, ref: `p${n}` });
    const got = await ann.count('message', 50);
    expect(got.map((frame) => (frame.message as { n: number }).n)).toEqual(
      Array.from({ length: 50 }, (_, n) => n),
    );
    const subscribed = await ann.next('subscribed', 's');
    const sequences = [subscribed, ...got].map(({ position }) => Number(String(position).split('-')[1]));
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    const published = await ann.next('published', 'p7');
    expect(got[7]).toMatchObject({ topic: 'system/events', id: published.id, position: published.position });
    await service('POST', '/v1/hook', { topic: 'system:events', action: 'publish', message: { by: 'hook' } });
    expect(await ann.find((f) => (f.message as { by?: string })?.by === 'hook')).toMatchObject({
      topic: 'system/events',
    });
  });

  it('receives nothing after unsubscribe, and nothing of topics it did not ask for', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    await ann.subscribe('a');
    ann.send({ action: 'unsubscribe', topic: 'a', ref: 'u' });
    await ann.next('unsubscribed', 'u');
    ann.send({ action: 'publish', topic: 'a', message: {}, ref: '1' });
    ann.send({ action: 'publish', topic: 'b', message: {}, ref: '2' });
    await ann.next('published', '2');
    await ann.settle();
    expect(ann.frames.filter(({ action }) => action === 'message')).toEqual([]);
  });

  it('gets every broadcast once, whatever it subscribed to, and only those of its audience', async () => {
    const [one, other] = [await tenant(), await tenant()];
    await using ann = await one.socket('ann');
    await using bob = await one.socket('bob');
    await using eve = await other.socket('eve');
    await bob.subscribe('__broadcast__');
    ann.send({ action: 'broadcast', message: { hello: 'all' }, ref: 'b' });
    const { id } = await ann.next('published', 'b');
    await one.service('POST', '/v1/hook', { action: 'broadcast', message: { from: 'hook' } });
    for (const socket of [ann, bob]) {
      const frames = await socket.count('broadcast', 2);
      await socket.settle();
      expect(
        socket.frames.filter(({ action }) => action === 'broadcast' || action === 'message'),
      ).toHaveLength(2);
      expect(frames[0]).toMatchObject({ id, message: { hello: 'all' } });
    }
    await eve.settle();
    expect(eve.frames.map(({ action }) => action)).toEqual(['welcome', 'pong']);
  });

  it('publishes the same id once', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    await ann.subscribe('a');
    for (const ref of ['1', '2'])
      ann.send({ action: 'publish', topic: 'a', message: { x: 1 }, id: 'same', ref });
    const [first, second] = [await ann.next('published', '1'), await ann.next('published', '2')];
    expect(second).toEqual({ ...first, ref: '2' });
    ann.send({ action: 'publish', topic: 'a', message: { x: 2 }, id: 'same', ref: '3' });
    expect(await ann.next('error', '3')).toMatchObject({ code: 'idempotency_conflict' });
    await ann.settle();
    expect(ann.frames.filter(({ action }) => action === 'message')).toHaveLength(1);
  });

  it('answers what is wrong with error frames and stays open, up to twenty in a minute', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    const wrong = ['{', '[]', { action: 'shout' }, { action: 'publish', topic: 'a', message: [] }];
    for (let i = 0; i < 20; i++) ann.send(wrong[i % wrong.length]);
    await ann.count('error', 20);
    await ann.settle();
    expect(
      ann.frames.filter(({ action }) => action === 'error').every(({ code }) => code === 'request_invalid'),
    ).toBe(true);
    ann.send('{');
    expect((await ann.end()).code).toBe(1008);
  });

  it('is closed with 1009 by a frame over the limit', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    ann.send({ action: 'publish', topic: 'a', message: { x: 'x'.repeat(70_000) } });
    expect((await ann.end()).code).toBe(1009);
  });

  it('may not hear the topics of others, platform topics of local scope, nor use patterns', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    for (const topic of [
      'user:bob',
      'personal.bob',
      'personal/bob',
      'community:join',
      'community.join',
      'a/*',
      '>',
      'sync.>',
      'room/organization/x',
    ]) {
      ann.send({ action: 'subscribe', topic, ref: topic });
      expect(await ann.next('error', topic)).toMatchObject({ code: 'forbidden' });
    }
    for (const topic of ['user:ann', 'personal.ann', 'usernotification:created', 'message:stored']) {
      expect(await ann.subscribe(topic)).toMatchObject({ topic });
    }
  });

  it('delivers once what two of its subscriptions take', async () => {
    const { socket, service } = await tenant();
    await using svc = await socket('svc', { role: 'service' });
    for (const topic of ['news/*', 'news/sport', '>']) await svc.subscribe(topic);
    await service('POST', '/v1/hook', { topic: 'news/sport', action: 'publish', message: { n: 1 } });
    await service('POST', '/v1/hook', { topic: 'news/art', action: 'publish', message: { n: 2 } });
    await svc.count('message', 2);
    await svc.settle();
    expect(svc.frames.filter(({ action }) => action === 'message').map(({ topic }) => topic)).toEqual([
      'news/sport',
      'news/art',
    ]);
  });

  it('has at most 128 subscriptions, and room again after an unsubscribe', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    for (let i = 0; i < 128; i++) ann.send({ action: 'subscribe', topic: `t/${i}` });
    await ann.count('subscribed', 128);
    ann.send({ action: 'subscribe', topic: 't/128', ref: 'x' });
    expect(await ann.next('error', 'x')).toMatchObject({ code: 'subscription_limit' });
    ann.send({ action: 'unsubscribe', topic: 't/0' });
    expect(await ann.subscribe('t/129')).toMatchObject({ topic: 't/129' });
  });

  it('is told when it publishes or broadcasts too fast', async () => {
    const { socket } = await tenant();
    await using ann = await socket('ann');
    for (let i = 0; i < 15; i++) ann.send({ action: 'broadcast', message: { i }, ref: `b${i}` });
    for (let i = 0; i < 300; i++) ann.send({ action: 'publish', topic: 'a', message: { i }, ref: `p${i}` });
    const answers = await Promise.all([
      ...Array.from({ length: 15 }, (_, i) => ann.find(({ ref }) => ref === `b${i}`)),
      ...Array.from({ length: 300 }, (_, i) => ann.find(({ ref }) => ref === `p${i}`)),
    ]);
    const refused = (from: number, to: number) =>
      answers.slice(from, to).filter(({ code }) => code === 'rate_limited').length;
    expect(refused(0, 15)).toBeGreaterThanOrEqual(3);
    expect(refused(15, 315)).toBeGreaterThan(50);
    expect(
      answers.filter(({ action }) => action === 'error').every(({ code }) => code === 'rate_limited'),
    ).toBe(true);
  });

  it('renews its token, and ends with 4401 when it does not', async () => {
    const { socket, token } = await tenant();
    await using ann = await socket('ann', { exp: now() + 3 });
    await using bob = await socket('bob', { exp: now() + 3 });
    await ann.subscribe('a');
    ann.send({ action: 'auth', token: await token('eve'), ref: 'eve' });
    expect(await ann.next('error', 'eve')).toMatchObject({ code: 'forbidden' });
    ann.send({ action: 'auth', token: 'nonsense', ref: 'bad' });
    expect(await ann.next('error', 'bad')).toMatchObject({ code: 'unauthorized' });
    const from = ann.frames.length;
    ann.send({ action: 'auth', token: await token('ann', { permissions: { subscribe: ['b'] } }) });
    await ann.find(({ action }) => action === 'welcome', from);
    expect(ann.frames.slice(from).map(({ action }) => action)).toEqual(['error', 'unsubscribed', 'welcome']);
    expect(await bob.next('error')).toMatchObject({ code: 'token_expired' });
    expect((await bob.end()).code).toBe(4401);
    await ann.settle();
    expect(ann.closed).toBeUndefined();
  });

  it('is sent elsewhere when its gateway goes down, and what was queued is written first', async () => {
    const gateway = await cluster.addReplica('gateway');
    const { token } = await tenant();
    await using ann = await CourierSocket.open(gateway.url, await token('ann'));
    await ann.subscribe('a');
    await gateway.stop();
    expect(await ann.end()).toMatchObject({ code: 1012 });
    expect(ann.frames.at(-1)).toMatchObject({ action: 'reconnect', after_ms: expect.any(Number) });
  });
});

describe('anything else', () => {
  it('is 404 in the same form', async () => {
    expectProblem(await call(base, undefined, 'GET', '/v1/nothing'), 'route_not_found', 404);
    expectProblem(await call(base, undefined, 'DELETE', '/v1/hook'), 'route_not_found', 404);
  });
});
