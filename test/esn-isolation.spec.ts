/**
 * What one audience does is never seen by another: notifications, timelines, dead letters, topics, error texts.
 * Everything that an audience says carries a mark of its own, and nothing that another one is answered may hold it.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import fc from 'fast-check';
import type { Answer, CourierSocket } from './support/courier-client.js';
import { type Caller, createTenant, eventually, type Tenant } from './support/tenant.js';

/** Names that look like subjects, filters, SQL or other names, and that are prefixes of each other. */
const ODD = [
  'a',
  'a.',
  'a.b',
  'a.*',
  '*',
  '>',
  'a>',
  '-',
  '=2A',
  '%',
  '%25',
  '_',
  "'",
  'ä',
  'а',
  '日本',
  '../x',
  '{}',
];
const oddName = fc.oneof(
  fc.constantFrom(...ODD),
  fc.tuple(fc.constantFrom(...ODD), fc.constantFrom(...ODD)).map(([a, b]) => a + b),
);

/** What both audiences know: the same names on either side. */
interface World {
  readonly audiences: readonly [string, string];
  readonly users: readonly string[];
  readonly community: string;
  readonly topic: string;
  /** What each of the two does, in this order. */
  readonly verbs: readonly Verb[];
}

const VERBS = [
  'invite',
  'join',
  'request',
  'external',
  'broken',
  'activity',
  'post',
  'register',
  'read',
] as const;
type Verb = (typeof VERBS)[number];

const world: fc.Arbitrary<World> = fc.record({
  audiences: fc
    .uniqueArray(oddName, { minLength: 2, maxLength: 2 })
    .map(([a = '', b = '']): [string, string] => [a, b]),
  users: fc.uniqueArray(oddName, { minLength: 2, maxLength: 2 }),
  community: oddName,
  topic: fc.constantFrom('a', 'a/b', 'a.b.c', 'ä:日本', "it's", '-', '=2A'),
  verbs: fc.uniqueArray(fc.constantFrom(...VERBS), { minLength: 3 }),
});

/** One of the two audiences, with the mark that all it says carries. */
interface Side {
  readonly tenant: Tenant;
  readonly mark: string;
  readonly admin: Caller;
  readonly users: readonly Caller[];
  readonly sockets: readonly CourierSocket[];
}

/** Ids that only this side may use. */
interface Ids {
  readonly notifications: string[];
  readonly letters: string[];
  readonly entries: string[];
  readonly cursors: string[];
}

describe('two audiences', () => {
  let cluster: TestCluster;
  let runs = 0;

  beforeAll(async () => {
    cluster = await startCluster();
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  async function open(name: string, { users, topic }: World): Promise<Side> {
    const tenant = await createTenant(cluster, name);
    const sockets = await Promise.all(users.map((user) => tenant.socket(user)));
    for (const socket of sockets) {
      for (const target of ['usernotification:created', 'usernotification:updated', topic]) {
        await socket.subscribe(target);
      }
    }
    return {
      tenant,
      mark: `mark-of-${runs}-${Buffer.from(name).toString('hex')}-`,
      admin: await tenant.as('root', { role: 'admin' }),
      users: await Promise.all(users.map((user) => tenant.as(user))),
      sockets,
    };
  }

  async function act(verb: Verb, { tenant, mark, admin, users }: Side, world: World): Promise<void> {
    const [ann = '', tom = ''] = world.users;
    const hook = (topic: string, message: object, scope?: string) =>
      tenant.service('POST', '/v1/hook', { topic, action: 'publish', message, ...(scope ? { scope } : {}) });
    const about = { author: `${mark}author`, target: tom, community: world.community };
    switch (verb) {
      case 'invite':
        return expectOk(hook('community:membership:invite', { ...about, author: `${mark}author` }));
      case 'join':
        return expectOk(hook('community:join', { ...about, managers: [ann], note: mark }));
      case 'request':
        // Nobody has said who manages it: a dead letter.
        return expectOk(hook('community:membership:request', { ...about, community: `${mark}community` }));
      case 'external': {
        const target = world.users.map((id) => ({ objectType: 'user', id }));
        const request = {
          title: mark,
          action: `${mark}action`,
          object: mark,
          link: mark,
          level: 'info',
          target,
        };
        return expectOk(tenant.service('POST', '/v1/notifications', request));
      }
      case 'broken':
        // Fits the schema, and can never be told.
        return expectOk(hook('notification:external', { target: `${mark}${'x'.repeat(300)}`, action: mark }));
      case 'activity': {
        const target = [{ objectType: 'user', id: tom }, { _id: world.community }];
        return expectOk(hook('message:activity', { verb: mark, actor: ann, object: mark, target }, 'local'));
      }
      case 'post':
        return expectOk(hook(world.topic, { mark }));
      case 'register': {
        const schema = { type: 'object', properties: { [`${mark}member`]: { type: 'string' } }, title: mark };
        return expectOk(tenant.service('POST', '/v1/topic', { topic: `${mark}topic`, schema }));
      }
      case 'read':
        await users[0]!('PUT', '/v1/notifications/read', { all: true, value: true });
        return expectOk(admin('POST', '/v1/dead-letters/redrive', { all: true, code: `${mark}code` }));
    }
  }

  async function expectOk(answer: Promise<Answer>): Promise<void> {
    const { status, body } = await answer;
    expect({ status, body: status < 300 ? undefined : body }).toEqual({ status, body: undefined });
  }

  /** All that a side may see of itself, as text, and the ids and cursors that stand in it. */
  async function look(side: Side, { users, community, topic }: World): Promise<{ seen: string[]; ids: Ids }> {
    const seen: string[] = [];
    const ids: Ids = { notifications: [], letters: [], entries: [], cursors: [] };
    const ask = async (caller: Caller, path: string): Promise<Answer['body']> => {
      const { status, body } = await caller('GET', path);
      seen.push(JSON.stringify(body));
      expect({ path, status }).toEqual({ path, status: 200 });
      if (body.next_cursor) ids.cursors.push(body.next_cursor);
      return body;
    };
    for (const caller of side.users) {
      const { items } = await ask(caller, '/v1/notifications?limit=1');
      ids.notifications.push(...items.map(({ id }: { id: string }) => id));
      await ask(caller, '/v1/notifications/unread');
      await ask(caller, '/v1/topic');
      await ask(caller, '/v1/asyncapi.json');
    }
    for (const target of [...users, community]) {
      const { items } = await ask(
        side.tenant.service,
        `/v1/timeline?limit=1&target=${encodeURIComponent(target)}`,
      );
      ids.entries.push(...items.map(({ id }: { id: string }) => id));
      await ask(side.admin, `/v1/timeline/unread?target=${encodeURIComponent(target)}`);
    }
    const { items } = await ask(side.admin, '/v1/dead-letters?limit=1');
    for (const { id } of items) {
      ids.letters.push(id);
      await ask(side.admin, `/v1/dead-letters/${id}`);
    }
    for (const socket of side.sockets) {
      await socket.settle();
      seen.push(JSON.stringify(socket.frames));
    }
    // Errors, about what is this side's own.
    const refused = await side.tenant.service('POST', '/v1/topic', { topic, schema: { type: side.mark } });
    seen.push(JSON.stringify(refused.body));
    return { seen, ids };
  }

  /** Tries another side's ids and cursors; each is answered as one that nobody has. */
  async function trespass(side: Side, ids: Ids, { users }: World): Promise<string[]> {
    const seen: string[] = [];
    const same = async (
      caller: Caller,
      method: string,
      path: (id: string) => string,
      id: string,
      body?: unknown,
    ) => {
      const theirs = await caller(method, path(id), body);
      const nobodys = await caller(method, path('0188f2b0-1234-7abc-8def-0123456789ab'), body);
      seen.push(JSON.stringify(theirs.body));
      const said = ({ status, body: { code, detail } }: Answer) => ({ status, code, detail });
      expect(theirs.status).toBeGreaterThanOrEqual(400);
      expect(said(theirs)).toEqual(said(nobodys));
    };
    for (const caller of [...side.users, side.admin]) {
      for (const id of ids.notifications) {
        await same(caller, 'PUT', (one) => `/v1/notifications/${one}/read`, id, { value: true });
        await same(caller, 'PUT', (one) => `/v1/notifications/${one}/acknowledged`, id, { value: true });
        const { body } = await caller('PUT', '/v1/notifications/read', { ids: [id], value: true });
        expect(body.updated).toBe(0);
      }
      for (const id of ids.letters) {
        await same(caller, 'GET', (one) => `/v1/dead-letters/${one}`, id);
        await same(caller, 'POST', (one) => `/v1/dead-letters/${one}/redrive`, id);
        await same(caller, 'DELETE', (one) => `/v1/dead-letters/${one}`, id);
      }
      for (const cursor of ids.cursors) {
        for (const path of [
          'notifications?',
          'dead-letters?',
          `timeline?target=${encodeURIComponent(users[0]!)}&`,
        ]) {
          const { body } = await caller('GET', `/v1/${path}cursor=${encodeURIComponent(cursor)}`);
          seen.push(JSON.stringify(body));
        }
      }
    }
    for (const id of ids.entries) {
      for (const target of users) {
        const { status } = await side.admin('PUT', '/v1/timeline/seen', { target, id });
        expect(status).toBe(404);
      }
    }
    return seen;
  }

  /** Resolves once all that a side did has become of it what will. */
  async function settled(side: Side, { verbs, users, community }: World): Promise<void> {
    const items = async (caller: Caller, path: string) => (await caller('GET', path)).body.items.length;
    const has = (verb: Verb) => verbs.includes(verb);
    const letters = Number(has('request')) + Number(has('broken'));
    const told = Number(has('invite')) + Number(has('external'));
    await eventually(async () => (await items(side.admin, '/v1/dead-letters')) >= letters || undefined);
    await eventually(async () => (await items(side.users[1]!, '/v1/notifications')) >= told || undefined);
    const entries = Number(has('join')) + Number(has('activity'));
    for (const target of [users[1]!, community]) {
      const path = `/v1/timeline?target=${encodeURIComponent(target)}`;
      await eventually(async () => (await items(side.tenant.service, path)) >= entries || undefined);
    }
  }

  it('never see of each other what they do, whatever their names', async () => {
    await fc.assert(
      fc.asyncProperty(world, async (drawn) => {
        runs += 1;
        // Names that no earlier run had, and that keep what is odd about them, at their end and in their middle.
        const audiences = drawn.audiences.map((name) => `${name}${runs}${name}`);
        const sides = await Promise.all(audiences.map((name) => open(name, drawn)));
        try {
          for (const verb of drawn.verbs) for (const side of sides) await act(verb, side, drawn);
          for (const side of sides) await settled(side, drawn);
          const looks = [];
          for (const side of sides) looks.push(await look(side, drawn));
          for (const [i, side] of sides.entries()) {
            const other = 1 - i;
            const foreign = sides[other]!.mark;
            const trespassed = await trespass(side, looks[other]!.ids, drawn);
            const all = [
              ...looks[i]!.seen,
              ...trespassed,
              JSON.stringify(side.sockets.map(({ frames }) => frames)),
            ];
            expect(all.filter((text) => text.includes(foreign))).toEqual([]);
            // The marks are there to be found.
            expect(looks[i]!.seen.some((text) => text.includes(side.mark))).toBe(true);
            const { letters } = looks[other]!.ids;
            for (const id of letters) {
              expect((await sides[other]!.admin('GET', `/v1/dead-letters/${id}`)).status).toBe(200);
            }
          }
        } finally {
          for (const { sockets } of sides) for (const socket of sockets) await socket[Symbol.asyncDispose]();
        }
      }),
      { numRuns: 12 },
    );
  }, 180_000);
});
