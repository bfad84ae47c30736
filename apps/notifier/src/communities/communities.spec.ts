import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { COMMUNITY_CALLS, MEMBERS_PAGE } from '@posthorn/contracts';
import { openDatabase } from '@posthorn/database';
import type { DataSource } from 'typeorm';
import { type Environment, startEnvironment } from '../../test/environment.js';
import { Store } from '../worker/store.js';
import type { Work } from '../worker/work.js';
import { Communities } from './communities.js';
import { Community } from './entities.js';

const chess = { author: 'ann', community: 'chess' };

describe('a community', () => {
  let env: Environment;
  let source: DataSource;
  let communities: Communities;
  let last = 0n;

  beforeAll(async () => {
    env = await startEnvironment();
    await env.replica().started;
    source = await openDatabase({ url: env.databaseUrl, schema: 'notifier', entities: [Community] });
    communities = new Communities({ source, lastEvent: async () => last, managersSet: () => {} });
  });
  afterEach(async () => {
    last = 0n;
    await env.clear();
  });
  afterAll(async () => {
    await source.destroy();
    await env[Symbol.asyncDispose]();
  });

  const members = (audience = 'acme') => communities.members({ audience, community: 'chess' });
  const set = (...users: string[]) => communities.setMembers({ audience: 'acme', community: 'chess', users });
  /** A join or leave that is stored at a place in the stream and handled now. */
  const change = (user: string, at: bigint, present = true) =>
    new Store(source).apply([work(user, at, present)]);
  const work = (user: string, at: bigint, present = true): Work => ({
    audience: 'acme',
    eventId: `e${at}`,
    ordinal: at,
    redelivered: false,
    content: undefined,
    wanted: { membership: { community: 'chess', user, present } },
  });

  it('has the managers that were set last, each once', async () => {
    expect(await env.setManagers('chess', ['max', 'mia', 'max'])).toEqual({
      community: 'chess',
      users: ['max', 'mia'],
    });
    await env.setManagers('chess', ['zoe'], 'globex');
    await env.setManagers('chess', ['mia']);
    expect(await env.query('SELECT audience, id, managers FROM notifier.community ORDER BY 1')).toEqual([
      { audience: 'acme', id: 'chess', managers: ['mia'] },
      { audience: 'globex', id: 'chess', managers: ['zoe'] },
    ]);
  });

  it('has the members that joined and did not leave', async () => {
    const { local } = env.pubsub();
    for (const target of ['tom', 'tim', 'tam']) {
      await local.topic('community:join').publish({ ...chess, target, actor: 'manager' });
    }
    await local.topic('community:leave').publish({ ...chess, target: { _id: 'tim' } });
    await env.settled();
    expect(await members()).toEqual(['tam', 'tom']);
    expect(await members('globex')).toEqual([]);
  });

  it('has the members that were set, and those who join or leave afterwards', async () => {
    const { local } = env.pubsub();
    await local.topic('community:join').publish({ ...chess, target: 'old', actor: 'manager' });
    await env.setMembers('chess', ['tom', 'tim', 'tom']);
    await local.topic('community:join').publish({ ...chess, target: 'new', actor: 'manager' });
    await local.topic('community:leave').publish({ ...chess, target: 'tim' });
    await env.settled();
    expect(await members()).toEqual(['new', 'tom']);
  });

  it('does not get back who left, when the join comes late', async () => {
    await change('tom', 2n, false);
    await change('tom', 1n, true);
    expect(await members()).toEqual([]);
    await change('tom', 3n, true);
    expect(await members()).toEqual(['tom']);
  });

  it('does not get back who is not in the list, when the join is older than the list', async () => {
    last = 5n;
    await set('tim', 'tam');
    await change('tom', 5n);
    await change('tam', 4n, false);
    expect(await members()).toEqual(['tam', 'tim']);
    await change('tom', 7n);
    await change('tam', 8n, false);
    expect(await members()).toEqual(['tim', 'tom']);
  });

  it('keeps who joined after the list was asked for and before it was written', async () => {
    last = 5n;
    await change('tom', 7n);
    await set('tim');
    expect(await members()).toEqual(['tim', 'tom']);
  });

  it('replaces a list by the next one where no event lies between them', async () => {
    await set('tom', 'tim');
    await set('tim', 'tam');
    expect(await members()).toEqual(['tam', 'tim']);
    await set();
    expect(await members()).toEqual([]);
  });

  it('has one of the lists that are set at once, not a mixture', async () => {
    for (let round = 0; round < 10; round++) {
      await Promise.all(['a', 'b', 'c', 'd'].map((list) => set(`${list}1`, `${list}2`, 'shared')));
      const [first = '', second, shared] = await members();
      expect([second, shared]).toEqual([first.replace('1', '2'), 'shared']);
    }
  });

  it('never waits in a circle with joins and leaves', async () => {
    await set('tim', 'tom', 'zoe');
    last = 2n;
    const transactions = jest.spyOn(source, 'transaction');
    const waiting = async (count: number) => {
      for (;;) {
        const [row]: [{ count: number }] = await source.query(
          `SELECT count(*)::int AS count FROM pg_stat_activity
           WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        if (row.count === count) return;
      }
    };
    await env.query('BEGIN');
    await env.query(`SELECT FROM notifier.community_member WHERE user_id = 'tim' FOR UPDATE`);
    // Has removed zoe, and comes to tom after tim.
    const setting = set('tim', 'tom');
    await waiting(1);
    const changing = new Store(source).apply([work('zoe', 3n), work('tom', 4n)]);
    await waiting(2);
    await env.query('COMMIT');
    await Promise.all([setting, changing]);
    // One that PostgreSQL had found in a deadlock would have been run again.
    expect(transactions).toHaveBeenCalledTimes(2);
    expect(await members()).toEqual(['tim', 'tom', 'zoe']);
    transactions.mockRestore();
  });

  it.each([
    ['an empty id', ['tom', '']],
    ['an id with NUL', ['a\0b']],
    ['half a character', ['\ud83d']],
    ['an id that no topic can carry', ['💌'.repeat(64)]],
    ['what is no text', [7 as never]],
  ])('refuses %s', async (_, users) => {
    for (const call of [env.setManagers('chess', users), env.setMembers('chess', users)]) {
      await expect(call).rejects.toMatchObject({ code: 'request_invalid' });
    }
    await expect(env.setManagers('a\0b', [])).rejects.toMatchObject({ code: 'request_invalid' });
  });

  it('gives the members in pages', async () => {
    const users = Array.from({ length: MEMBERS_PAGE + 1 }, (_, i) => `user ${i}`).sort();
    await set(...users);
    const call = (after?: string): Promise<string[]> =>
      env.rpc.call(COMMUNITY_CALLS.listMembers, { audience: 'acme', community: 'chess', after });
    const first = await call();
    expect(first).toEqual(users.slice(0, MEMBERS_PAGE));
    expect(await call(first.at(-1))).toEqual(users.slice(MEMBERS_PAGE));
  });

  it('takes any other id as it is', async () => {
    const users = ['*', '>', 'a.b', '"', "'; --", '💌', '{x,"y"}', '\\', 'NULL', ' '];
    expect(await env.setManagers('chess', users)).toEqual({ community: 'chess', users });
    expect(await env.query('SELECT managers FROM notifier.community')).toEqual([{ managers: users }]);
    await env.setMembers('*', users);
    expect(await communities.members({ audience: 'acme', community: '*' })).toEqual([...users].sort());
  });
});
