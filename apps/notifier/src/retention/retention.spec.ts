import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { BusEvent } from '@posthorn/bus';
import { JetStreamBus } from '@posthorn/bus/platform';
import type { InboxUpdate, TimelineSeen } from '@posthorn/contracts';
import { openDatabase } from '@posthorn/database';
import { Metrics } from '@posthorn/service';
import { eventually } from '@posthorn/testing';
import fc from 'fast-check';
import type { DataSource } from 'typeorm';
import { type Environment, startEnvironment } from '../../test/environment.js';
import { InboxMarks } from '../inbox/inbox-marks.js';
import { InboxUpdates } from '../inbox/inbox-updates.js';
import { NotifierMetrics } from '../metrics.js';
import { SCHEMA } from '../schema.js';
import type { Activity } from '../timeline/activity.js';
import { TimelineStore } from '../timeline/store.js';
import { Timeline } from '../timeline/timeline.js';
import { TimelineWriter } from '../timeline/writer.js';
import { external, invitationCancelled, invited, left, type Wanted } from '../worker/notice.js';
import { Store } from '../worker/store.js';
import { Writer } from '../worker/writer.js';
import { Expiry } from './expiry.js';
import { Retention, type RetentionOptions } from './retention.js';

/** Half past ten on the first of January 2027, by the clock of these tests. */
const NOW = 1_798_799_400_000;
const HOUR = 3_600_000;
const AGE = 24 * HOUR;

/** When an event was stored that long ago, in nanoseconds since 1970. */
const ago = (ms: number) => BigInt(NOW - ms) * 1_000_000n;

/** Removed with the next run: an hour older than what is not written any more. */
const OLD = AGE + HOUR + 1;
const YOUNG = AGE + HOUR;

const chess = { author: 'ann', target: 'tom', community: 'chess' };

describe('retention', () => {
  let env: Environment;
  let bus: JetStreamBus;
  const sources: DataSource[] = [];
  const metrics = new NotifierMetrics(new Metrics('notifier'));

  beforeAll(async () => {
    env = await startEnvironment();
    bus = await JetStreamBus.open({
      nc: env.link.connection,
      instance: 'main',
      audience: null,
      connected: () => env.link.isConnected(),
    });
    for (let i = 0; i < 2; i++) {
      const url = env.databaseUrl;
      sources.push(await openDatabase({ url, schema: 'notifier', ...SCHEMA }));
    }
  });
  afterEach(() => env.clear());
  afterAll(async () => {
    bus.close();
    for (const source of sources) await source.destroy();
    await env[Symbol.asyncDispose]();
  });

  const updatesOf = (source: DataSource) => new InboxUpdates({ source, bus, logger: { warn: () => {} } });
  const retention = (options: Partial<RetentionOptions> = {}, replica = 0) => {
    const source = sources[replica]!;
    return new Retention({
      source,
      updates: updatesOf(source),
      metrics,
      notifications: new Expiry(AGE, () => NOW),
      timelines: new Expiry(AGE, () => NOW),
      deliverableSince: async () => ago(AGE),
      ...options,
    });
  };
  /** A worker that keeps everything: what it wrote long ago. */
  const writerOf = (replica = 0, expiry = new Expiry(1_000 * AGE, () => NOW)) => {
    const source = sources[replica]!;
    const store = new Store(source);
    return new Writer({ store, bus, updates: updatesOf(source), metrics, expiry, batchSize: 100 });
  };
  let events = 0;
  const eventOf = (audience = 'acme', id = `e${events++}`) =>
    ({ audience, id, traceparent: undefined }) as unknown as BusEvent;
  const write = (age: number, wanted: Wanted, audience?: string) =>
    writerOf().write(eventOf(audience), { tries: 1, storedAt: ago(age), redriven: false }, wanted);
  const notify = (age: number, target: string | string[] = 'tom', audience?: string) =>
    write(age, external({ target, action: 'a' }), audience);
  const ids = async (user = 'tom') => (await env.list(user, { limit: 100 })).items.map(({ id }) => id);
  const updates = async () => {
    const told = await env.told();
    return told.flatMap(({ topic, audience, message }) =>
      topic === 'usernotification:updated' ? [{ audience, message: message as InboxUpdate }] : [],
    );
  };
  const count = async (table: string, where = 'true') => {
    const [row] = await env.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM notifier.${table} WHERE ${where}`,
    );
    return row!.count;
  };

  describe('of notifications', () => {
    // The pages are read through a notifier, whose own retention looks at them with today's clock: all are young.
    beforeAll(() => env.replica().started);

    it('removes what is too old, and tells its owner once', async () => {
      for (const age of [OLD, OLD + 1, YOUNG, 0]) await notify(age);
      const [, , ...old] = await ids();
      await retention().run();
      expect(await env.list('tom')).toMatchObject({ items: [{}, {}], unread_count: 2, version: 5 });
      expect(await updates()).toEqual([
        {
          audience: 'acme',
          message: { target: 'tom', change: 'removed', ids: expect.anything(), unread_count: 2, version: 5 },
        },
      ]);
      expect((await updates())[0]?.message.ids?.sort()).toEqual(old.sort());
      await retention().run();
      expect(await updates()).toHaveLength(1);
    });

    it('counts out what was unread, and tells nobody of what was not listed', async () => {
      const marks = new InboxMarks(sources[0]!, updatesOf(sources[0]!));
      for (let i = 0; i < 4; i++) await notify(OLD + i);
      await notify(0);
      const [, read, acknowledged] = await ids();
      const owner = { audience: 'acme', user: 'tom' };
      await marks.markOne({ ...owner, id: read!, flag: 'read', value: true });
      await marks.markOne({ ...owner, id: acknowledged!, flag: 'acknowledged', value: true });
      await write(OLD + 9, invited({ ...chess, target: 'tim' }));
      await write(OLD + 8, invitationCancelled({ ...chess, target: 'tim' }));
      const tim = await env.list('tim');
      const before = (await updates()).length;
      await retention().run();
      expect(await count('notification')).toBe(1);
      expect(await env.list('tom')).toMatchObject({ items: [{}], unread_count: 1 });
      const [told, ...more] = (await updates()).slice(before);
      expect(more).toEqual([]);
      expect(told!.message).toMatchObject({ target: 'tom', change: 'removed', unread_count: 1 });
      expect(told!.message.ids).toHaveLength(3);
      expect(told!.message.ids).not.toContain(acknowledged);
      expect(await env.list('tim')).toEqual(tim);
    });

    it('tells each inbox of each audience by itself', async () => {
      const names = ['*', '>', 'a', 'a.b', 'ünï', 'A'];
      await notify(OLD, names);
      await notify(OLD, names, 'globex');
      await notify(0, names);
      await retention().run();
      const told = await updates();
      expect(told.map(({ audience, message: { target } }) => `${audience} ${target}`).sort()).toEqual(
        ['acme', 'globex'].flatMap((audience) => names.map((name) => `${audience} ${name}`)).sort(),
      );
      for (const { audience, message } of told) {
        expect(message).toMatchObject({ change: 'removed', unread_count: audience === 'acme' ? 1 : 0 });
      }
    });

    it('keeps the version of an inbox that is empty now', async () => {
      await notify(OLD);
      await retention().run();
      expect(await env.list('tom')).toMatchObject({ items: [], unread_count: 0, version: 2 });
      await notify(0);
      expect(await env.list('tom')).toMatchObject({ unread_count: 1, version: 3 });
    });

    it('goes on in batches until nothing is left, and can be broken off after any', async () => {
      for (let i = 0; i < 10; i++) await notify(OLD, ['tom', 'tim', 'tam']);
      const ending = new AbortController();
      const broken = retention({
        batch: 7,
        updates: {
          announce: async (recorded) => {
            await updatesOf(sources[0]!).announce(recorded);
            ending.abort();
          },
        },
      });
      await broken.run(ending.signal);
      expect(await count('notification')).toBe(23);
      expect(await count('inbox', `unread_count < 0`)).toBe(0);
      await retention({ batch: 7 }).run();
      expect(await count('notification')).toBe(0);
      expect(await count('inbox', `unread_count <> 0`)).toBe(0);
      const removed = (await updates()).flatMap(({ message }) => message.ids ?? []);
      expect(new Set(removed).size).toBe(30);
      expect(removed).toHaveLength(30);
    });

    it('leaves what is to be told in the database where it dies before it tells', async () => {
      await notify(OLD);
      const died = new Error('the process died');
      const dying = retention({ updates: { announce: () => Promise.reject(died) } });
      await expect(dying.run()).rejects.toBe(died);
      expect(await count('notification')).toBe(0);
      expect(await env.query('SELECT user_id, message FROM notifier.inbox_update')).toMatchObject([
        {
          user_id: 'tom',
          message: { change: 'removed', ids: [expect.any(String)], unread_count: 0, version: 2 },
        },
      ]);
    });

    it('waits for nobody: what is locked goes with another run', async () => {
      await notify(OLD);
      await notify(OLD + 1);
      const runner = sources[1]!.createQueryRunner();
      await runner.startTransaction();
      await runner.query('SELECT id FROM notification ORDER BY ordinal LIMIT 1 FOR UPDATE');
      await retention().run();
      expect(await count('notification')).toBe(1);
      await runner.commitTransaction();
      await runner.release();
      await retention().run();
      expect(await count('notification')).toBe(0);
    });

    it('leaves the work to the replica that is at it', async () => {
      await notify(OLD);
      const runner = sources[1]!.createQueryRunner();
      await runner.startTransaction();
      await runner.query(`SELECT pg_advisory_xact_lock(hashtext('posthorn.notifier.retention'))`);
      await retention().run();
      expect(await count('notification')).toBe(1);
      await runner.rollbackTransaction();
      await runner.release();
    });

    it('keeps counts exact while others write and mark', async () => {
      const users = ['tom', 'tim', 'tam'];
      const step = fc.record({
        age: fc.constantFrom(OLD, OLD + 1, OLD + 2, YOUNG, 0),
        users: fc.subarray(users, { minLength: 1 }),
        mark: fc.constantFrom('read', 'acknowledged', undefined),
        batch: fc.integer({ min: 1, max: 9 }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
          await env.clear();
          const marks = [0, 1].map((i) => new InboxMarks(sources[i]!, updatesOf(sources[i]!)));
          await Promise.all(
            steps.map(async ({ age, users: targets, mark, batch }, i) => {
              const wanted = external({ target: targets, action: 'a' });
              await writerOf(i % 2).write(
                eventOf(),
                { tries: 1, storedAt: ago(age), redriven: false },
                wanted,
              );
              const purge = retention({ batch }, i % 2).run();
              if (mark) {
                const rows: { id: string; audience: string; user: string }[] = await sources[0]!.query(
                  `SELECT id, audience, target AS user FROM notification ORDER BY random() LIMIT 2`,
                );
                for (const row of rows) {
                  await marks[i % 2]!.markOne({ ...row, flag: mark, value: true }).catch((error) => {
                    expect(error).toMatchObject({ code: 'notification_not_found' });
                  });
                }
              }
              await purge;
            }),
          );
          await retention().run();
          expect(await count('notification', `ordinal < ${ago(YOUNG)}`)).toBe(0);
          const young = steps.filter(({ age }) => age <= YOUNG);
          expect(await count('notification')).toBe(young.reduce((sum, { users }) => sum + users.length, 0));
          const wrong = await env.query(
            `SELECT i.user_id, i.unread_count, c.unread FROM notifier.inbox i
             CROSS JOIN LATERAL (
               SELECT count(*)::int AS unread FROM notifier.notification n
               WHERE n.audience = i.audience AND n.target = i.user_id
                 AND NOT n.read AND NOT n.acknowledged AND NOT n.withdrawn) AS c
             WHERE i.unread_count <> c.unread`,
          );
          expect(wrong).toEqual([]);
        }),
        { numRuns: 12 },
      );
    }, 60_000);

    it('begins when a notifier starts, and says how much it has removed', async () => {
      await env.query(
        `INSERT INTO notifier.notification (content, created_at, emitted_at, id, audience, event_id, target,
                                            category, interactive, ordinal)
         SELECT '{}', now(), now(), gen_random_uuid(), 'acme', 'e' || n, 'tom', 'c', false, n
         FROM generate_series(1, 3) AS n`,
      );
      await env.query(`INSERT INTO notifier.inbox VALUES ('acme', 'tom', 3, 3)`);
      const replica = env.replica();
      await replica.started;
      await eventually(async () => (await updates()).length === 1);
      expect(await count('notification')).toBe(0);
      const { body } = await replica.metrics.exposition();
      expect(body).toMatch(/^posthorn_retention_removed_total\{kind="notification",app="notifier"\} 3/m);
      await replica.stop();
    });
  });

  it('removes invitations that judge nothing any more', async () => {
    await write(OLD, invitationCancelled(chess));
    await write(YOUNG, invitationCancelled({ ...chess, community: 'go' }));
    await write(0, invited({ ...chess, community: 'tennis' }));
    await retention().run();
    expect(await env.query('SELECT community FROM notifier.invitation')).toEqual([{ community: 'go' }]);
    const late = new Expiry(AGE, () => NOW);
    const invite = { tries: 1, storedAt: ago(OLD + 1), redriven: false };
    await writerOf(0, late).write(eventOf(), invite, invited(chess));
    expect(await count('notification', "invited_to = 'chess'")).toBe(0);
  });

  it('removes who has left, once no join from before can come', async () => {
    await write(OLD + 2, left(chess));
    await write(OLD, left({ ...chess, target: 'tim' }));
    await write(OLD, { membership: { community: 'chess', user: 'ann', present: true } });
    await retention({ deliverableSince: async () => 0n }).run();
    expect(await count('community_member')).toBe(3);
    await retention({ deliverableSince: async () => ago(OLD + 1) }).run();
    expect(await env.query('SELECT user_id FROM notifier.community_member ORDER BY 1')).toEqual([
      { user_id: 'ann' },
      { user_id: 'tim' },
    ]);
    await retention({ deliverableSince: async () => ago(0) }).run();
    expect(await env.query('SELECT user_id FROM notifier.community_member')).toEqual([{ user_id: 'ann' }]);
    const redriven = { tries: 1, storedAt: ago(OLD + 3), redriven: true };
    const join = { membership: { community: 'chess', user: 'tom', present: true } };
    await writerOf(0, new Expiry(AGE, () => NOW)).write(eventOf(), redriven, join);
    expect(await count('community_member')).toBe(1);
    await writerOf(0, new Expiry(AGE, () => NOW)).write(eventOf(), { ...redriven, redriven: false }, join);
    expect(await count('community_member')).toBe(2);
  });

  describe('of timelines', () => {
    const put = (age: number, targets: readonly string[], expiry = new Expiry(1_000 * AGE, () => NOW)) => {
      const store = new TimelineStore(sources[0]!);
      const writer = new TimelineWriter({ store, metrics, expiry, batchSize: 100 });
      const activity: Activity = { content: JSON.stringify({ verb: 'post', age }), targets };
      return writer.write(eventOf(), { tries: 1, storedAt: ago(age), redriven: false }, activity);
    };
    const tom = { audience: 'acme', target: 'tom', user: 'tom' };

    it('removes activities with their entries, however many there are', async () => {
      await put(
        OLD,
        Array.from({ length: 95 }, (_, i) => `u${i}`),
      );
      await put(OLD + 1, ['tom']);
      await put(YOUNG, ['tom', 'tim']);
      await put(0, ['tom']);
      const before = metrics.removed.entries.value;
      await retention({ batch: 10 }).run();
      expect(await count('activity')).toBe(2);
      expect(await count('timeline_entry')).toBe(3);
      expect(metrics.removed.entries.value - before).toBe(96);
    });

    it('can be broken off between two batches of one activity', async () => {
      await put(
        OLD,
        Array.from({ length: 25 }, (_, i) => `u${i}`),
      );
      const ending = new AbortController();
      const removed = { ...metrics.removed, entries: { value: 0, inc: () => ending.abort() } };
      await retention({ batch: 10, metrics: { removed } }).run(ending.signal);
      expect(await count('activity')).toBe(1);
      expect(await count('timeline_entry')).toBe(15);
      await retention({ batch: 10 }).run();
      expect(await count('activity')).toBe(0);
    });

    it('writes nothing that would be removed', async () => {
      const expiry = new Expiry(AGE, () => NOW);
      await put(AGE + 1, ['tom'], expiry);
      await put(AGE, ['tom'], expiry);
      expect(await count('activity')).toBe(1);
    });

    it('forgets what was seen with the last entry that was, and counts as before', async () => {
      const timeline = new Timeline(sources[0]!);
      for (const age of [OLD + 1, OLD, YOUNG, 0]) await put(age, ['tom', 'tim']);
      const { items } = await timeline.list({ ...tom, limit: 10 });
      await timeline.see({ ...tom, id: items[2]!.id });
      await timeline.see({ ...tom, user: 'max', id: items[1]!.id });
      await retention().run();
      const forgotten: TimelineSeen = { last_seen: null, unread_count: 2 };
      expect(await timeline.countUnread(tom)).toEqual(forgotten);
      expect(await timeline.countUnread({ ...tom, user: 'max' })).toEqual({
        last_seen: items[1]!.id,
        unread_count: 1,
      });
      expect(await count('timeline_seen')).toBe(1);
    });
  });
});
