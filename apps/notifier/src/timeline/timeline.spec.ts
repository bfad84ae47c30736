import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  STREAMS,
  TIMELINE_CALLS,
  type TimelineItem,
  type TimelinePage,
  type TimelineSeen,
  UNREAD_LIMIT,
} from '@posthorn/contracts';
import { eventually, startTcpProxy } from '@posthorn/testing';
import { type Environment, type Replica, startEnvironment } from '../../test/environment.js';

const ACTIVITIES = 'activitystreams-activity-main';
const JOINS = 'activitystreams-join-main';
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const PLACE = 'MTowMWEyMDBjZS1hZDI3LTcwMzItYjVjNS1lMmRjYTcxNzc5ZjE';

const post = (target: unknown[], more: object = {}) => ({
  verb: 'post',
  actor: 'ann',
  object: { _id: 'm1' },
  target,
  ...more,
});

describe('timelines', () => {
  let env: Environment;
  let replica: Replica;
  beforeAll(async () => {
    env = await startEnvironment();
    replica = env.replica();
    await replica.started;
  });
  afterEach(async () => {
    await settled();
    await env.clear();
  });
  afterAll(() => env[Symbol.asyncDispose]());

  const settled = () => Promise.all([env.settled(ACTIVITIES), env.settled(JOINS)]);
  const publish = (payload: object, options = {}, audience = 'acme') =>
    env
      .pubsub(audience)
      .local.topic('message:activity')
      .publish(payload as never, options);
  const join = (target: string, community = 'chess') =>
    env.pubsub().local.topic('community:join').publish({ author: 'ann', target, community, managers: [] });
  const list = (target: string, more: object = {}): Promise<TimelinePage> =>
    env.rpc.call(TIMELINE_CALLS.list, { audience: 'acme', target, limit: 20, ...more });
  const see = (target: string, id: string, user = 'tom', more: object = {}): Promise<TimelineSeen> =>
    env.rpc.call(TIMELINE_CALLS.see, { audience: 'acme', target, id, user, ...more });
  const unread = (target: string, user = 'tom', more: object = {}): Promise<TimelineSeen> =>
    env.rpc.call(TIMELINE_CALLS.countUnread, { audience: 'acme', target, user, ...more });
  /** The timeline page by page, as `n` of the items. */
  const walk = async (target: string, limit: number) => {
    const numbers: unknown[] = [];
    let cursor: string | null = null;
    do {
      const page: TimelinePage = await list(target, { limit, ...(cursor === null ? {} : { cursor }) });
      numbers.push(...page.items.map(({ n }) => n));
      cursor = page.next_cursor;
    } while (cursor !== null);
    return numbers;
  };
  const rows = async () => {
    const [counts] = await env.query<{ activities: number; entries: number }>(
      `SELECT (SELECT count(*)::int FROM notifier.activity) AS activities,
              (SELECT count(*)::int FROM notifier.timeline_entry) AS entries`,
    );
    return counts;
  };

  it('have activities of both forms and joins, newest first', async () => {
    await publish(post(['tom', { _id: 7 }], { published: 0 }));
    await publish({ verb: 'create', source: 'ann', targets: ['tom'], message: 'm2', date: '2027-01-15' });
    await join('tom');
    await settled();
    const { items, next_cursor } = await list('tom');
    expect(items).toEqual([
      {
        id: expect.stringMatching(UUID_V7),
        verb: 'join',
        published: expect.any(String),
        actor: { objectType: 'user', id: 'ann' },
        object: { objectType: 'community', id: 'chess' },
        target: [
          { objectType: 'community', id: 'chess' },
          { objectType: 'user', id: 'tom' },
        ],
      },
      {
        id: expect.stringMatching(UUID_V7),
        verb: 'create',
        published: '2027-01-15T00:00:00.000Z',
        actor: 'ann',
        object: 'm2',
        target: ['tom'],
      },
      {
        id: expect.stringMatching(UUID_V7),
        ...post(['tom', { _id: 7 }]),
        published: '1970-01-01T00:00:00.000Z',
      },
    ]);
    expect(next_cursor).toBeNull();
    expect((await list('7')).items).toEqual([items[2]]);
    expect((await list('chess')).items).toEqual([items[0]]);
    expect((await list('nobody')).items).toEqual([]);
  });

  it('hear their two topics and no other, each through a consumer of its own', async () => {
    const { config: activities } = await env.jsm.consumers.info(STREAMS.local.name, ACTIVITIES);
    const { config: joins } = await env.jsm.consumers.info(STREAMS.local.name, JOINS);
    expect(activities.filter_subject).toBe('ph.*.local.main.-.message.activity');
    expect(joins.filter_subject).toBe('ph.*.local.main.-.community.join');
  });

  it('store an activity once, however often its event is sent, and on how many timelines it stands', async () => {
    const targets = Array.from({ length: 5_000 }, (_, i) => `u${i}`);
    const { id } = await publish(post(targets));
    await settled();
    expect(await rows()).toEqual({ activities: 1, entries: 5_000 });
    await env.publishRaw('message:activity', JSON.stringify(post(['tom'])), { id });
    await env.publishRaw('message:activity', JSON.stringify(post(['tom'])), { id, audience: 'globex' });
    await settled();
    expect(await rows()).toEqual({ activities: 2, entries: 5_001 });
    expect((await list('tom')).items).toEqual([]);
  });

  it('store an event once where two replicas get it at the same time', async () => {
    const other = env.replica();
    await other.started;
    const ids = Array.from({ length: 50 }, (_, i) => `e${i}`);
    await Promise.all(
      [...ids, ...ids.toReversed()].map((id) =>
        env.publishRaw('message:activity', JSON.stringify(post(['tom', 'tim'])), { id }),
      ),
    );
    await settled();
    expect(await rows()).toEqual({ activities: 50, entries: 100 });
    await other.stop();
  });

  it('store nothing for an activity without targets', async () => {
    await publish(post([]));
    await settled();
    expect(await rows()).toEqual({ activities: 0, entries: 0 });
  });

  it('keep what JSON can say and PostgreSQL would refuse in other types', async () => {
    const odd = { text: 'a\u0000b \ud800 \u2028', big: 1e300, ' ': { '\u0000': [] } };
    await env.publishRaw('message:activity', JSON.stringify(post(['tom'], { odd })));
    await settled();
    expect((await list('tom')).items[0]?.odd).toEqual(odd);
  });

  it.each([
    ['no JSON', '{', /UTF-8 JSON/],
    ['neither form', '{"verb":"post"}', /schema/],
    ['a target without an id', JSON.stringify(post([{ id: 'a\u0000b' }])), /^\/target holds no id/],
    [
      'too many targets',
      JSON.stringify(post(Array.from({ length: 10_001 }, (_, i) => i))),
      /^\/target holds more than 10000 targets/,
    ],
  ])('give up %s after one try, say why, and let the others pass', async (_, payload, reason) => {
    await publish(post(['tom']));
    await env.publishRaw('message:activity', payload);
    await publish(post(['tom']));
    await settled();
    expect(await env.deadLetters(ACTIVITIES)).toMatchObject([
      { code: 'payload_invalid', reason: expect.stringMatching(reason), tries: 1 },
    ]);
    expect((await list('tom')).items).toHaveLength(2);
  });

  it('are read page by page, also while they grow', async () => {
    for (let n = 0; n < 25; n++) await publish(post(['tom'], { n }));
    await settled();
    const numbers = Array.from({ length: 25 }, (_, i) => 24 - i);
    for (const limit of [1, 7, 24, 25, 100]) expect(await walk('tom', limit)).toEqual(numbers);
    const first = await list('tom', { limit: 10 });
    await publish(post(['tom'], { n: 25 }));
    await settled();
    const second = await list('tom', { limit: 10, cursor: first.next_cursor });
    expect(second.items.map(({ n }) => n)).toEqual(numbers.slice(10, 20));
  });

  it('give no more on a page than one message over NATS takes, and at least one item', async () => {
    const text = 'x'.repeat(600_000);
    for (let n = 0; n < 4; n++)
      await publish(post(['tom'], { n, text: n === 2 ? 'x'.repeat(1_040_000) : text }));
    await settled();
    expect((await list('tom')).items.map(({ n }) => n)).toEqual([3]);
    expect(await walk('tom', 100)).toEqual([3, 2, 1, 0]);
  });

  it.each(['x', 'MQ', `${PLACE}=`, "' OR true --"])('refuse a cursor that is none: %s', async (cursor) => {
    await expect(list('tom', { cursor })).rejects.toMatchObject({ code: 'request_invalid' });
  });

  it('of audiences and targets with odd names are told apart', async () => {
    const names = [
      '*',
      '>',
      'a',
      'a.b',
      'a.*',
      'a.b.c',
      'ab',
      'ü',
      'u\u0308',
      '用户',
      'A',
      '-',
      '=2A',
      "'; --",
      '%',
    ];
    for (const name of names) await publish(post([name], { n: name }));
    for (const name of names) await publish(post([name], { n: `globex ${name}` }), {}, 'globex');
    await settled();
    for (const name of names) {
      expect((await list(name)).items.map(({ n }) => n)).toEqual([name]);
      expect((await list(name, { audience: 'globex' })).items.map(({ n }) => n)).toEqual([`globex ${name}`]);
    }
  });

  describe('read by users', () => {
    const forbidden = { code: 'forbidden' };

    it('are their own, and those of the communities that they belong to or manage', async () => {
      await publish(post(['tom', 'chess', 'go']));
      await env.setMembers('chess', ['tom']);
      await env.setManagers('go', ['max']);
      await settled();
      expect((await list('tom', { reader: 'tom' })).items).toHaveLength(1);
      expect((await list('chess', { reader: 'tom' })).items).toHaveLength(1);
      expect((await list('go', { reader: 'max' })).items).toHaveLength(1);
      const others = [
        ['tom', 'tim'],
        ['go', 'tom'],
        ['chess', 'max'],
        ['nobody', 'tom'],
      ] as const;
      for (const [target, reader] of others) {
        await expect(list(target, { reader })).rejects.toMatchObject(forbidden);
        await expect(unread(target, reader, { reader })).rejects.toMatchObject(forbidden);
        await expect(see(target, 'x', reader, { reader })).rejects.toMatchObject(forbidden);
      }
    });

    it('open with a join, and close with a leave, or where the members are set anew', async () => {
      const may = () =>
        list('chess', { reader: 'tom' }).then(
          () => true,
          () => false,
        );
      await join('tom');
      await env.settled();
      expect(await may()).toBe(true);
      await env
        .pubsub()
        .local.topic('community:leave')
        .publish({ author: 'tom', target: 'tom', community: 'chess' });
      await env.settled();
      expect(await may()).toBe(false);
      await env.setMembers('chess', ['tom']);
      expect(await may()).toBe(true);
      await env.setMembers('chess', []);
      expect(await may()).toBe(false);
    });

    it('are none of another audience', async () => {
      await env.setMembers('chess', ['tom'], 'globex');
      await expect(list('chess', { reader: 'tom' })).rejects.toMatchObject(forbidden);
      expect((await list('chess', { reader: 'tom', audience: 'globex' })).items).toEqual([]);
    });
  });

  describe('seen by a user', () => {
    const entries = async (): Promise<readonly TimelineItem[]> => {
      for (let n = 0; n < 5; n++) await publish(post(['tom', 'chess'], { n }));
      await settled();
      return (await list('tom')).items;
    };

    it('count what is newer than the last entry seen', async () => {
      const items = await entries();
      expect(await unread('tom')).toEqual({ last_seen: null, unread_count: 5 });
      const third = items[2]!.id;
      expect(await see('tom', third)).toEqual({ last_seen: third, unread_count: 2 });
      await publish(post(['tom']));
      await settled();
      expect(await unread('tom')).toEqual({ last_seen: third, unread_count: 3 });
    });

    it('move forward only, also where two tabs tell at the same time', async () => {
      const items = await entries();
      await Promise.all(items.map(({ id }) => see('tom', id)));
      const newest = { last_seen: items[0]!.id, unread_count: 0 };
      expect(await unread('tom')).toEqual(newest);
      expect(await see('tom', items[4]!.id)).toEqual(newest);
    });

    it('are counted for each user, timeline and audience', async () => {
      const [newest] = await entries();
      await see('tom', newest!.id, 'tom');
      const nothing = { last_seen: null, unread_count: 5 };
      expect(await unread('tom', 'tim')).toEqual(nothing);
      expect(await unread('chess', 'tom')).toEqual(nothing);
      expect(await unread('tom', 'tom', { audience: 'globex' })).toEqual({
        last_seen: null,
        unread_count: 0,
      });
    });

    it('have no entry of another timeline, or another audience, or none at all', async () => {
      const [newest] = await entries();
      const unknown = { code: 'timeline_entry_not_found', status: 404 };
      await expect(see('tim', newest!.id)).rejects.toMatchObject(unknown);
      await expect(see('tom', newest!.id, 'tom', { audience: 'globex' })).rejects.toMatchObject(unknown);
      for (const id of ['x', '00000000-0000-0000-0000-000000000000', newest!.id.toUpperCase()]) {
        await expect(see('tom', id)).rejects.toMatchObject(unknown);
      }
      expect(await unread('tom')).toEqual({ last_seen: null, unread_count: 5 });
    });

    it('are counted to a limit', async () => {
      await Promise.all(Array.from({ length: UNREAD_LIMIT + 5 }, () => publish(post(['tom']))));
      await settled();
      expect((await unread('tom')).unread_count).toBe(UNREAD_LIMIT);
    });
  });

  it('hold events while PostgreSQL is away, and give none of them up', async () => {
    const target = new URL(env.databaseUrl);
    await using database = await startTcpProxy(Number(target.port));
    target.port = String(database.port);
    await replica.stop();
    const linked = env.replica({ DATABASE_URL: target.href });
    await linked.started;
    await publish(post(['tom'], { n: 0 }));
    await settled();
    database.cut();
    for (let n = 1; n <= 20; n++) await publish(post(['tom'], { n }));
    const held =
      /^posthorn_notifier_events_total\{consumer="activities",outcome="held",app="notifier"\} [1-9]/m;
    await eventually(async () => held.test((await linked.metrics.exposition()).body));
    database.restore();
    await settled();
    replica = env.replica();
    await replica.started;
    const numbers = await walk('tom', 100);
    expect(numbers.sort((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 21 }, (_, n) => n));
    expect(await env.deadLetters(ACTIVITIES)).toEqual([]);
    await linked.stop();
  });

  it('tell in metrics and health how they do', async () => {
    await publish(post(['tom', 'tim']));
    await settled();
    const { body } = await replica.metrics.exposition();
    expect(body).toMatch(/^posthorn_timeline_entries_written_total\{app="notifier"\} [1-9]/m);
    expect(body).toMatch(/^posthorn_consumer_pending_events\{consumer="activities",app="notifier"\} 0/m);
    expect(body).toMatch(/^posthorn_consumer_pending_events\{consumer="joins",app="notifier"\} 0/m);
    const { checks } = replica.health.readiness();
    expect(checks).toMatchObject({ activities: { up: true }, joins: { up: true } });
  });
});
