/** Rooms (docs/protocols/livestorm.md): what servers and members publish reaches the rooms that it is for, and no other. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ROOM_SCOPES, type Room, type RoomScope } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import fc from 'fast-check';
import { type Answer, CourierSocket, call } from './support/courier-client.js';
import { EventStreamClient } from './support/event-source.js';
import { FrameStreamClient } from './support/frame-stream.js';
import { Poller } from './support/poller.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

const SUBSCRIPTIONS = 16;
const MIB = 1024 * 1024;

let cluster: TestCluster;
let acme: Tenant;
let globex: Tenant;
/** API tokens for all scopes, by audience. */
const tokens = new Map<string, string>();

beforeAll(async () => {
  cluster = await startCluster({
    replicas: { gateway: 2, notifier: 0 },
    env: {
      SUBSCRIPTION_LIMIT: String(SUBSCRIPTIONS),
      BUS_TIMEOUT: '1s',
      PUBLISH_RATE: '50',
      PUBLISH_BURST: '60',
      STORED_BYTES_PER_DAY: String(10 * MIB),
    },
  });
  [acme, globex] = await Promise.all([createTenant(cluster, 'acme'), createTenant(cluster, 'acme/room')]);
  for (const tenant of [acme, globex]) tokens.set(tenant.audience, await issue(tenant, ...ROOM_SCOPES));
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function issue(tenant: Tenant, ...scopes: RoomScope[]): Promise<string> {
  const admin = await tenant.as('root', { role: 'admin' });
  const body = { name: 'test', scopes: scopes.map((scope) => `publish:${scope}`) };
  const answer = await admin('POST', '/v1/tokens', body);
  expect(answer.status).toBe(201);
  return answer.body.token;
}

const urlOf = (gateway: number) => cluster.gatewayUrls[gateway]!;

/** A call of the API, with the token as the document has it: bare. */
function publish(
  token: string | undefined,
  body: unknown,
  headers: Record<string, string> = {},
  path = '/api/v1/pub_subs',
): Promise<Answer> {
  const all = token === undefined ? headers : { authorization: token, ...headers };
  return call(urlOf(0), undefined, 'POST', path, body, all);
}

const newRoom = (event_id: string = randomUUID()): Room => ({ event_id, session_id: randomUUID() });

/** The body of a call. */
function toRoom(type: RoomScope, room: Partial<Room>, eventName: unknown, data: unknown) {
  return { scope: { type, ...room }, payload: { event: { eventName, data } } };
}

/** The names by which a room's members know an event, by scope. */
function topicsOf({ event_id, session_id }: Room, eventName: string): Record<RoomScope, string> {
  return {
    organization: `room/organization/${eventName}`,
    event: `room/event/${event_id}/${eventName}`,
    session: `room/session/${session_id}/${eventName}`,
  };
}

/** An event stream of topics, whatever their names hold. */
function openStream(base: string, token: string, topics: readonly string[]): Promise<EventStreamClient> {
  const query = new URLSearchParams(topics.map((topic): [string, string] => ['topic', topic]));
  return EventStreamClient.open(`${base}/v1/stream?${query}`, {
    headers: { authorization: `Bearer ${token}` },
  });
}

const messagesOf = (socket: CourierSocket) => socket.frames.filter(({ action }) => action === 'message');

describe('the call of the document', () => {
  it('is caught in the room, sent by curl', async () => {
    const room = newRoom();
    await using member = await acme.socket('ann', { room });
    await member.subscribe(topicsOf(room, 'hello').session);
    // The text of the document, with its placeholders filled in.
    const request = `POST api/v1/pub_subs
Host: plugins.livestorm.co
Content-Type: application/json
Authorization: ${tokens.get('acme')}
{
"scope": {
"type": "session",
"event_id": "${room.event_id}",
"session_id": "${room.session_id}"
},
"payload": {
"event": {
"eventName": "hello",
"data": {
"foo": "bar"
}
}
}
}`;
    const [first = '', ...lines] = request.split('\n');
    const [method = '', path = ''] = first.split(' ');
    const body = lines.indexOf('{');
    const { stdout } = await promisify(execFile)('curl', [
      ...['-sS', '-w', '\n%{http_code}', '-X', method, '--data', lines.slice(body).join('\n')],
      ...lines.slice(0, body).flatMap((header) => ['-H', header]),
      `${urlOf(0)}/${path}`,
    ]);
    const [answer = '', status] = stdout.split('\n');
    const { id, position } = JSON.parse(answer);
    expect(status).toBe('202');
    const [frame] = await member.count('message', 1);
    expect(frame).toMatchObject({ topic: `room/session/${room.session_id}/hello`, id, position });
    expect(frame?.message).toEqual({ foo: 'bar' });
  });
});

describe('POST /api/v1/pub_subs', () => {
  const room = newRoom();

  it.each(['/api/v1/pub_subs', '/api/v1/publish'])(
    'is answered once the event is stored: %s',
    async (path) => {
      const body = toRoom('event', room, 'stored', { n: 1 });
      const { status, body: answer } = await publish(`Bearer ${tokens.get('acme')}`, body, {}, path);
      expect(status).toBe(202);
      expect(Object.keys(answer).sort()).toEqual(['id', 'position']);
    },
  );

  it('delivers names and data as they are', async () => {
    await using member = await acme.socket('ann', { room });
    const names = [
      'a/b.c:d',
      '*',
      '>',
      ' ',
      '\0',
      'two\nlines\r',
      '\u{1F600}'.repeat(255),
      'e\u0301',
      '\u00e9',
    ];
    const data = '{"":null,"__proto__":{"a.b":[1,"\\ud800",1e+308]},"topic":"x","type":"y"}';
    for (const name of names) {
      await member.subscribe(topicsOf(room, name).session);
      const { status } = await publish(tokens.get('acme'), toRoom('session', room, name, JSON.parse(data)));
      expect(status).toBe(202);
    }
    await member.count('message', names.length);
    const got = messagesOf(member).map(({ topic, message }) => [topic, JSON.stringify(message)]);
    expect(got).toEqual(names.map((name) => [topicsOf(room, name).session, data]));
  });

  it.each<[string, unknown, string[]]>([
    ['nothing', {}, ['/scope', '/payload']],
    ['no type', { scope: {}, payload: {} }, ['/payload/event', '/scope/type']],
    ['another type', toRoom('room' as RoomScope, room, 'a', {}), ['/scope/type']],
    ['a list', toRoom('organization', {}, 'a', []), ['/payload/event/data']],
    ['null', toRoom('organization', {}, 'a', null), ['/payload/event/data']],
    ['an event without its id', toRoom('event', {}, 'a', {}), ['/scope/event_id']],
    ['an event that is no uuid', toRoom('event', { event_id: 'xxx' }, 'a', {}), ['/scope/event_id']],
    ['a session without ids', toRoom('session', {}, 'a', {}), ['/scope/event_id', '/scope/session_id']],
    ['a session of no event', toRoom('session', { session_id: randomUUID() }, 'a', {}), ['/scope/event_id']],
    [
      'an id with a separator',
      toRoom('session', { ...room, session_id: `${room.session_id}/x` }, 'a', {}),
      ['/scope/session_id'],
    ],
    ['no name', toRoom('organization', {}, undefined, {}), ['/payload/event/eventName']],
    ['an empty name', toRoom('organization', {}, '', {}), ['/payload/event/eventName']],
    ['a number', toRoom('organization', {}, 7, {}), ['/payload/event/eventName']],
    ['256 characters', toRoom('organization', {}, 'é'.repeat(256), {}), ['/payload/event/eventName']],
    ['half a character', toRoom('organization', {}, 'a\ud83d', {}), ['/payload/event/eventName']],
  ])('says what is wrong: %s', async (_, body, paths) => {
    const { status, body: problem } = await publish(tokens.get('acme'), body);
    expect([status, problem.code]).toEqual([422, 'request_invalid']);
    expect(problem.errors.map(({ path }: { path: string }) => path)).toEqual(paths);
    expect(problem.detail).toContain(paths[0]!.slice(1).replaceAll('/', '.'));
  });

  it('passes over ids that the scope does not go by', async () => {
    const { status } = await publish(
      tokens.get('acme'),
      toRoom('organization', { event_id: '', session_id: 'x' }, 'a', {}),
    );
    expect(status).toBe(202);
  });

  it.each(ROOM_SCOPES)('is for the scopes of the token: publish:%s', async (scope) => {
    const token = await issue(acme, scope);
    for (const type of ROOM_SCOPES) {
      const { status, body } = await publish(token, toRoom(type, room, 'a', {}));
      expect([type, status, body.code]).toEqual([
        type,
        type === scope ? 202 : 403,
        type === scope ? undefined : 'forbidden',
      ]);
    }
  });

  it('takes API tokens only', async () => {
    const body = toRoom('organization', {}, 'a', {});
    const admin = `Bearer ${await acme.token('root', { role: 'admin' })}`;
    for (const token of [undefined, 'nonsense', admin, `ph_${'0'.repeat(32)}_${'0'.repeat(64)}`]) {
      expect((await publish(token, body)).body.code).toBe('unauthorized');
    }
    const hook = { topic: 'a', action: 'publish', message: {} };
    const { status } = await call(urlOf(0), tokens.get('acme'), 'POST', '/v1/hook', hook);
    expect(status).toBe(401);
  });

  it('stores a repeat once, for each token', async () => {
    const key = { 'idempotency-key': 'the same' };
    const [token, another] = [tokens.get('acme'), await issue(acme, 'event')];
    const first = await publish(token, toRoom('event', room, 'once', { n: 1 }), key);
    const again = await publish(token, toRoom('event', room, 'once', { n: 1 }), key, '/api/v1/publish');
    const others = await publish(another, toRoom('event', room, 'once', { n: 1 }), key);
    expect([first.status, again.status, others.status]).toEqual([202, 202, 202]);
    expect(again.body).toEqual(first.body);
    expect(others.body.position).not.toBe(first.body.position);
    const conflict = await publish(token, toRoom('event', room, 'once', { n: 2 }), key);
    expect([conflict.status, conflict.body.code]).toEqual([409, 'idempotency_conflict']);
  });

  it('is limited for each token', async () => {
    const token = await issue(acme, 'event');
    const calls = Array.from({ length: 120 }, () => publish(token, toRoom('event', room, 'fast', {})));
    const refused = (await Promise.all(calls)).filter(({ status }) => status !== 202);
    expect(refused.length).toBeGreaterThan(0);
    expect(new Set(refused.map(({ body }) => body.code))).toEqual(new Set(['rate_limited']));
    expect(refused[0]?.headers.get('retry-after')).toBe('1');
    expect((await publish(tokens.get('acme'), toRoom('event', room, 'fast', {}))).status).toBe(202);
  });

  it("takes 1 MiB, as far as the audience's day reaches", async () => {
    const initech = await createTenant(cluster, 'initech');
    const token = await issue(initech, 'event');
    const sized = (bytes: number) =>
      toRoom('event', room, 'large', { a: 'x'.repeat(bytes - '{"a":""}'.length) });
    expect((await publish(token, sized(MIB + 1))).body.code).toBe('payload_too_large');
    for (let i = 0; i < 10; i++) expect((await publish(token, sized(MIB))).status).toBe(202);
    const problem = await eventually(async () => {
      const { status, body } = await publish(token, sized(MIB));
      return status === 202 ? undefined : body;
    });
    expect(problem.code).toBe('storage_quota');
  });

  it('is checked by the schema of the topic, and may be ephemeral', async () => {
    const at = `room/event/${room.event_id}`;
    const schema = { type: 'object', required: ['n'] };
    await acme.service('POST', '/v1/topic', { topic: `${at}/strict`, schema });
    await acme.service('POST', '/v1/topic', { topic: `${at}/cursor`, durable: false });
    const strict = await publish(tokens.get('acme'), toRoom('event', room, 'strict', {}));
    expect([strict.status, strict.body.code]).toEqual([422, 'payload_invalid']);
    const live = await publish(tokens.get('acme'), toRoom('event', room, 'cursor', {}));
    expect([live.status, live.body.position]).toEqual([202, undefined]);
  });
});

describe('a member', () => {
  it('is told its room, and again with each token', async () => {
    const [room, other] = [newRoom(), newRoom()];
    await using member = await acme.socket('ann', { room });
    await using guest = await acme.socket('bob');
    expect((await member.next('welcome')).room).toEqual(room);
    expect(await guest.next('welcome')).not.toHaveProperty('room');
    member.send({ action: 'auth', token: await acme.token('ann', { room: other }) });
    await member.count('welcome', 2);
    expect(member.frames.at(-1)).toMatchObject({ action: 'welcome', room: other });
  });

  it('of another room, once its token says so, has left the former one', async () => {
    const room = newRoom();
    const other = newRoom(room.event_id);
    await using member = await acme.socket('ann', { room });
    const [here, there] = [topicsOf(room, 'a'), topicsOf(other, 'a')];
    for (const topic of Object.values(here)) await member.subscribe(topic);
    member.send({ action: 'auth', token: await acme.token('ann', { room: other }) });
    await member.count('welcome', 2);
    const ended = member.frames.filter(({ action }) => action === 'unsubscribed');
    expect(ended.map(({ topic }) => topic)).toEqual([here.session]);
    await member.subscribe(there.session);
    for (const each of [room, other]) {
      for (const scope of ['session', 'event'] as const) {
        await publish(tokens.get('acme'), toRoom(scope, each, 'a', { to: each.session_id }));
      }
    }
    await member.count('message', 3);
    await member.settle();
    expect(messagesOf(member).map(({ topic, message }) => [topic, message])).toEqual([
      [here.event, { to: room.session_id }],
      [there.session, { to: other.session_id }],
      [there.event, { to: other.session_id }],
    ]);
  });

  it('has one subscription for an event name, on a socket, on a stream and in a poll', async () => {
    const room = newRoom();
    const token = await acme.token('ann', { room });
    const topicsOfNames = (count: number) =>
      Array.from({ length: count }, (_, i) => Object.values(topicsOf(room, `name ${i}`))).flat();
    await using member = await CourierSocket.open(urlOf(0), token);
    const topics = topicsOfNames(SUBSCRIPTIONS);
    for (const topic of topics) member.send({ action: 'subscribe', topic });
    await member.count('subscribed', topics.length);
    member.send({ action: 'subscribe', topic: topicsOf(room, 'more').event, ref: 'more' });
    expect(await member.next('error', 'more')).toMatchObject({ code: 'subscription_limit' });
    // A name is given up with the last of its topics.
    const [one, two, three] = topics as [string, string, string];
    for (const topic of [one, two]) member.send({ action: 'unsubscribe', topic });
    member.send({ action: 'subscribe', topic: 'plain', ref: 'plain' });
    expect(await member.next('error', 'plain')).toMatchObject({ code: 'subscription_limit' });
    expect(await member.subscribe(two)).toMatchObject({ topic: two });
    for (const topic of [two, three]) member.send({ action: 'unsubscribe', topic });
    expect(await member.subscribe('plain')).toMatchObject({ topic: 'plain' });

    const open = (names: readonly string[]) => openStream(urlOf(0), token, names);
    await using stream = await open(topics);
    expect(stream.status).toBe(200);
    await using beyond = await open([...topics, topicsOf(room, 'more').event]);
    expect(beyond.status).toBe(429);

    const poll = (channels: readonly string[]) =>
      new Poller({ urls: [urlOf(0)], database: 'acme', token, channels }).poll();
    const channels = topicsOfNames(128);
    expect((await poll([...channels, 'plain'])).status).toBe(422);
    await publish(tokens.get('acme'), toRoom('event', room, 'name 127', { n: 1 }));
    expect((await poll(channels)).body.message).toMatchObject({ n: 1 });
  });

  it.each(ROOM_SCOPES)('with and without a permission to publish: %s', async (scope) => {
    const room = newRoom();
    const topic = topicsOf(room, 'say')[scope];
    const other = topicsOf(newRoom(), 'say')[scope];
    const may = {
      room,
      permissions: { publish: ['room/organization/*', `room/event/*/*`, `room/session/*/*`] },
    };
    for (const [claims, own, others] of [
      [{ room }, scope === 'session', false],
      [may, true, scope === 'organization'],
      [{ permissions: may.permissions }, false, false],
    ] as const) {
      await using socket = await acme.socket('ann', claims);
      const caller = await acme.as('ann', claims);
      for (const [name, allowed] of [
        [topic, own],
        [other, others],
      ] as const) {
        socket.send({ action: 'publish', topic: name, message: {}, ref: name });
        const answer = await socket.find(({ ref }) => ref === name);
        expect([answer.action, answer.code]).toEqual(
          allowed ? ['published', undefined] : ['error', 'forbidden'],
        );
        const hook = await caller('POST', '/v1/hook', { topic: name, action: 'publish', message: {} });
        expect(hook.status).toBe(allowed ? 200 : 403);
      }
    }
  });

  it('of another room, or of none, is refused on every face', async () => {
    const room = newRoom();
    for (const claims of [{}, { room: newRoom() }, { permissions: { subscribe: ['>'] } }]) {
      const token = await acme.token('ann', claims);
      await using socket = await CourierSocket.open(urlOf(0), token);
      for (const topic of [topicsOf(room, 'a').session, topicsOf(room, 'a').event]) {
        socket.send({ action: 'subscribe', topic, ref: topic });
        expect(await socket.next('error', topic)).toMatchObject({ code: 'forbidden' });
        await using stream = await openStream(urlOf(0), token, [topic]);
        expect(stream.status).toBe(403);
        await using frames = await FrameStreamClient.open(urlOf(0), token, { subscriptions: [{ topic }] });
        expect(await frames.find(({ ref }) => ref === topic)).toMatchObject({ code: 'forbidden' });
        const poller = new Poller({ urls: [urlOf(0)], database: 'acme', token, channels: [topic] });
        expect((await poller.poll()).status).toBe(403);
      }
    }
  });

  it('has a room whose ids name it and nothing else, or its token is refused', async () => {
    const room = newRoom();
    for (const session_id of [`${room.session_id}/a`, 'a.b', 'a:b', '*', '>', 'a b', '', 'x'.repeat(65)]) {
      const caller = await acme.as('ann', { room: { ...room, session_id } });
      expect((await caller('GET', '/v1/sign')).status).toBe(401);
    }
  });
});

/** Somebody who listens, by one face. */
interface Listener {
  readonly tenant: Tenant;
  /** Undefined for whoever sees the rooms from outside. */
  readonly room: Room | undefined;
  readonly claims: object;
  readonly topics: readonly string[];
  readonly face: 'socket' | 'frames' | 'stream' | 'poll';
  readonly gateway: number;
}

/** A listener as it is drawn: by the numbers of its audience, its room, and the event names that it hears. */
interface Someone {
  readonly tenant: number;
  readonly room: number;
  readonly kind: 'member' | 'member with a pattern' | 'service' | 'admin';
  readonly face: Listener['face'];
  readonly gateway: number;
  readonly names: readonly number[];
}

/** An event of a run. */
interface Published {
  readonly tenant: Tenant;
  readonly scope: RoomScope;
  readonly room: Room;
  readonly eventName: string;
  readonly n: number;
}

describe('who receives what', () => {
  const END = 'the end of the run';
  const [e1, e2, s1, s2, s3] = Array.from({ length: 5 }, () => randomUUID()) as [
    string,
    string,
    string,
    string,
    string,
  ];
  /** The same in each audience: two of one event, one of another, and those whose ids are words of other names. */
  const rooms: readonly Room[] = [
    { event_id: e1, session_id: s1 },
    { event_id: e1, session_id: s2 },
    { event_id: e2, session_id: s3 },
    { event_id: e2, session_id: e1 },
    { event_id: 'organization', session_id: 'session' },
    { event_id: 'a', session_id: '=2F' },
  ];
  const isAddressable = ({ event_id, session_id }: Room) =>
    [event_id, session_id].every((id) => id.length === s1.length);

  const alike = fc.constantFrom(
    ...[
      'a',
      'a/b',
      'a.b',
      'a:b',
      'a=2Fb',
      'a/',
      'A',
      'aa',
      '/',
      '.',
      '*',
      '>',
      '*/b',
      'a.*',
      'a/>',
      ' ',
      ' a',
      'a ',
    ],
    ...[
      'session',
      `session/${s1}/a`,
      `event/${e1}/a`,
      'organization/a',
      `${s1}/a`,
      `${e1}.a`,
      'room/organization/a',
    ],
    ...[
      '\0',
      '\n',
      'a\nb',
      'a%0Ab',
      '=00',
      '-',
      '__proto__',
      '\u2028',
      '\ufeffa',
      'user:bob',
      '__broadcast__',
    ],
    ...['\u00e9', 'e\u0301', '\ufb01', 'fi', '\u{1F600}'.repeat(255), `${'\u{1F600}'.repeat(254)}a`],
  );
  const eventNames = fc.uniqueArray(
    fc.oneof({ weight: 4, arbitrary: alike }, fc.string({ unit: 'binary', minLength: 1, maxLength: 8 })),
    { minLength: 2, maxLength: 5 },
  );
  const where = { tenant: fc.nat(1), room: fc.nat(rooms.length - 1) };
  const someone: fc.Arbitrary<Someone> = fc.record({
    ...where,
    kind: fc.oneof(
      { weight: 8, arbitrary: fc.constant('member' as const) },
      fc.constantFrom('member with a pattern' as const, 'service' as const, 'admin' as const),
    ),
    face: fc.constantFrom<Listener['face']>('socket', 'frames', 'stream', 'poll'),
    gateway: fc.nat(1),
    names: fc.uniqueArray(fc.nat(4), { minLength: 1 }),
  });
  const event = fc.record({
    ...where,
    scope: fc.constantFrom(...ROOM_SCOPES),
    name: fc.nat(4),
    by: fc.constantFrom('api', 'hook', 'member' as const),
  });

  /** What a listener should receive: the model. */
  function receives({ tenant, room, topics }: Listener, published: Published): boolean {
    if (tenant !== published.tenant) return false;
    const topic = topicsOf(published.room, published.eventName)[published.scope];
    if (room === undefined) return true;
    const isOwn =
      published.scope === 'organization' ||
      (published.scope === 'event' && published.room.event_id === room.event_id) ||
      (published.scope === 'session' && published.room.session_id === room.session_id);
    return isOwn && (topics.includes('room/>') || topics.includes(topic));
  }

  function listenerOf(one: Someone, names: readonly string[]): Listener {
    const tenant = [acme, globex][one.tenant]!;
    const room = rooms[one.room]!;
    const { face, gateway } = one;
    const at = { tenant, face, gateway };
    const patterns = one.gateway === 0 ? ['room/>'] : ['room.organization.*', 'room.*.*.*'];
    if (one.kind === 'service' || one.kind === 'admin') {
      return { ...at, room: undefined, claims: { role: one.kind }, topics: patterns };
    }
    const permissions = { subscribe: ['room/>', 'user:*'] };
    if (one.kind === 'member with a pattern') {
      return { ...at, room, claims: { room, permissions }, topics: ['room/>'] };
    }
    const heard = one.names.map((i) => names[i % names.length]!);
    const possible = [END, ...heard];
    const topics = new Set(possible.flatMap((name) => Object.values(topicsOf(room, name))));
    return { ...at, room, claims: { room }, topics: [...topics] };
  }

  /** Where the run before has ended, by audience: polls begin there. */
  const places = new Map<string, string>();

  async function end(tenant: Tenant, n: number): Promise<void> {
    const body = toRoom('organization', {}, END, { n });
    places.set(tenant.audience, (await publish(tokens.get(tenant.audience), body)).body.position);
  }

  /** What came to a listener, as `name n`, once the end of the run has, and so many in all: topics keep no order. */
  type Heard = (atLeast: number) => Promise<string[]>;

  async function listen(listener: Listener): Promise<Heard> {
    const { tenant, claims, topics, face, gateway } = listener;
    // All are the same user: rooms are told apart by the token alone.
    const token = await tenant.token('bob', claims);
    const isEnd = (name: unknown) => name === topicsOf(rooms[0]!, END).organization;
    switch (face) {
      case 'socket': {
        const socket = await CourierSocket.open(urlOf(gateway), token);
        for (const [i, topic] of topics.entries())
          socket.send({ action: 'subscribe', topic, ref: String(i) });
        for (const i of topics.keys()) {
          expect(await socket.find(({ ref }) => ref === String(i))).toMatchObject({ action: 'subscribed' });
        }
        return async (atLeast) => {
          await using _ = socket;
          await socket.find(({ topic, action }) => action === 'message' && isEnd(topic));
          await socket.count('message', atLeast);
          await socket.settle();
          return messagesOf(socket).map(({ topic, message }) => `${topic} ${(message as { n: number }).n}`);
        };
      }
      case 'frames': {
        const subscriptions = topics.map((topic) => ({ topic }));
        const stream = await FrameStreamClient.open(urlOf(gateway), token, { subscriptions });
        await stream.count('subscribed', topics.length);
        return async (atLeast) => {
          await using _ = stream;
          const messages = () => stream.of('message');
          await stream.until(
            () => messages().length >= atLeast && messages().some(({ topic }) => isEnd(topic)),
          );
          return messages().map(({ topic, message }) => `${topic} ${(message as { n: number }).n}`);
        };
      }
      case 'stream': {
        const stream = await openStream(urlOf(gateway), token, topics);
        expect([stream.status, stream.body]).toEqual([200, '']);
        return async (atLeast) => {
          await using _ = stream;
          const { events } = stream;
          await stream.until(() => events.length >= atLeast && events.some(({ name }) => isEnd(name)));
          return events.map(({ name, data }) => `${name} ${JSON.parse(data).n}`);
        };
      }
      case 'poll': {
        const urls = [urlOf(gateway), urlOf(1 - gateway)];
        const last = places.get(tenant.audience)!;
        const poller = new Poller({ urls, database: tenant.audience, token, channels: topics, last });
        return async (atLeast) => {
          const came: string[] = [];
          let silent = 0;
          for (let ended = false; !ended || came.length < atLeast; ) {
            const { status, body } = await poller.poll();
            expect([status, body.recovered]).toEqual([200, undefined]);
            if (!body.message) {
              // A poll waits for a second, and a busy machine may take longer over what it waits for.
              if (++silent === 20) throw new Error(`only ${came.length} of ${atLeast} came: ${came}`);
              continue;
            }
            came.push(`${body.channel} ${body.message.n}`);
            ended ||= isEnd(body.channel);
          }
          return came;
        };
      }
    }
  }

  it('is what a small model says, whatever names and faces', async () => {
    let published = 0;
    for (const tenant of [acme, globex]) await end(tenant, published++);
    await fc.assert(
      fc.asyncProperty(
        eventNames,
        fc.array(someone, { minLength: 6, maxLength: 10 }),
        fc.array(event, { minLength: 8, maxLength: 16 }),
        async (names, people, events) => {
          const listeners = people.map((one) => listenerOf(one, names));
          const heard = await Promise.all(listeners.map(listen));
          const all: Published[] = [];
          for (const one of events) {
            const tenant = [acme, globex][one.tenant]!;
            const room = rooms[one.room]!;
            const eventName = names[one.name % names.length]!;
            const scope = one.by === 'member' ? 'session' : one.scope;
            const n = published++;
            all.push({ tenant, scope, room, eventName, n });
            if (one.by === 'api' && isAddressable(room)) {
              const { status } = await publish(
                tokens.get(tenant.audience),
                toRoom(scope, room, eventName, { n }),
              );
              expect(status).toBe(202);
              continue;
            }
            const topic = topicsOf(room, eventName)[scope];
            const caller = one.by === 'member' ? await tenant.as('eve', { room }) : tenant.service;
            expect(
              (await caller('POST', '/v1/hook', { topic, action: 'publish', message: { n } })).status,
            ).toBe(200);
          }
          for (const tenant of [acme, globex]) {
            const n = published++;
            all.push({ tenant, scope: 'organization', room: rooms[0]!, eventName: END, n });
            await end(tenant, n);
          }
          await Promise.all(
            listeners.map(async (listener, i) => {
              const shown = (name: string) =>
                listener.face === 'stream' ? name.replaceAll('\r', '%0D').replaceAll('\n', '%0A') : name;
              const wanted = all
                .filter((one) => receives(listener, one))
                .map(({ scope, room, eventName, n }) => `${shown(topicsOf(room, eventName)[scope])} ${n}`);
              const received = await heard[i]!(wanted.length);
              expect([listener, received.sort()]).toEqual([listener, wanted.sort()]);
            }),
          );
        },
      ),
      { numRuns: 30 },
    );
  }, 120_000);
});
