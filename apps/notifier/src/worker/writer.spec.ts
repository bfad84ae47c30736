import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { BusEvent, Receipt } from '@posthorn/bus';
import { type Bus, JetStreamBus } from '@posthorn/bus/platform';
import { type InboxUpdate, ProblemError } from '@posthorn/contracts';
import { openDatabase } from '@posthorn/database';
import { Metrics } from '@posthorn/service';
import fc from 'fast-check';
import type { DataSource } from 'typeorm';
import { type Environment, startEnvironment } from '../../test/environment.js';
import { InboxReader } from '../inbox/inbox-reader.js';
import { InboxUpdates } from '../inbox/inbox-updates.js';
import { NotifierMetrics } from '../metrics.js';
import { Expiry } from '../retention/expiry.js';
import { SCHEMA } from '../schema.js';
import { external, invitationCancelled, invited, type Wanted } from './notice.js';
import { Store } from './store.js';
import { eventKey, Writer } from './writer.js';

/** An event as it is delivered: its place in the stream, and what its row of the table wants. */
interface Step {
  readonly at: number;
  readonly wanted: Wanted;
  readonly id?: string;
  readonly audience?: string;
  readonly tries?: number;
}

const pair = { author: 'ann', target: 'tom', community: 'chess' };
const invite = (at: number, over: Partial<typeof pair> = {}): Step => ({
  at,
  wanted: invited({ ...pair, ...over }),
});
const cancel = (at: number, over: Partial<typeof pair> = {}): Step => ({
  at,
  wanted: invitationCancelled({ ...pair, ...over }),
});
const message = (at: number, target: string | string[] = 'tom', data?: unknown): Step => ({
  at,
  wanted: external({ target, action: 'a', data }),
});

const OFFSET = 1_800_000_000_000_000_000n;
const AWAY = new ProblemError('unavailable', 'The bus is away');

describe('the writer', () => {
  let env: Environment;
  let bus: JetStreamBus;
  const sources: DataSource[] = [];

  beforeAll(async () => {
    env = await startEnvironment();
    bus = await JetStreamBus.open({
      nc: env.link.connection,
      instance: 'main',
      audience: null,
      connected: () => env.link.isConnected(),
    });
    for (let i = 0; i < 2; i++) {
      sources.push(
        await openDatabase({
          url: env.databaseUrl,
          schema: 'notifier',
          ...SCHEMA,
        }),
      );
    }
  });
  afterEach(() => env.clear());
  afterAll(async () => {
    bus.close();
    for (const source of sources) await source.destroy();
    await env[Symbol.asyncDispose]();
  });

  const updatesOf = (replica = 0, publish: Bus['publish'] = (draft) => bus.publish(draft)) =>
    new InboxUpdates({ source: sources[replica]!, bus: { publish }, logger: { warn: () => {} } });
  /** A replica's writer; `publish` stands for its way to the bus. */
  const writerOf = (replica = 0, publish: Bus['publish'] = (draft) => bus.publish(draft)) => {
    const writer = new Writer({
      store: new Store(sources[replica]!),
      bus: { publish },
      updates: updatesOf(replica, publish),
      metrics: new NotifierMetrics(new Metrics('notifier')),
      expiry: new Expiry(1_000, () => Number(OFFSET / 1_000_000n)),
      batchSize: 100,
    });
    return ({ at, wanted, id = `e${at}`, audience = 'acme', tries = 1 }: Step) =>
      writer.write(
        { audience, id, traceparent: undefined } as BusEvent,
        {
          tries,
          storedAt: OFFSET + BigInt(at),
          redriven: false,
        },
        wanted,
      );
  };
  /** What tom was told, in order: what is new, and what was withdrawn. */
  const told = async () =>
    (await env.told()).map(({ topic, message: { complement, notification } }) =>
      topic === 'usernotification:created'
        ? `new ${complement?.id}`
        : `${notification?.withdrawn ? 'withdrawn' : 'changed'} ${notification?.complement.id}`,
    );
  const list = (user = 'tom') => new InboxReader(sources[0]!).list({ audience: 'acme', user, limit: 100 });

  it('makes nothing of what is too old to keep', async () => {
    const write = writerOf();
    for (const step of [message(-1_000_000_001), invite(-1_000_000_002), message(-1_000_000_000)])
      await write(step);
    expect((await list()).items).toMatchObject([{ category: 'external' }]);
    expect(await env.query('SELECT * FROM notifier.invitation')).toEqual([]);
  });

  describe('with an invite and its cancel', () => {
    it('withdraws an invite that was told', async () => {
      const write = writerOf();
      await write(invite(1));
      const [open] = (await list()).items;
      await write(cancel(2));
      expect(await told()).toEqual(['new chess', 'withdrawn chess']);
      expect(await list()).toMatchObject({ items: [], unread_count: 0, version: 2 });
      const update: InboxUpdate = {
        target: 'tom',
        change: 'withdrawn',
        notification: { ...open!, withdrawn: true },
        unread_count: 0,
        version: 2,
      };
      expect((await env.told())[1]?.message).toEqual(update);
    });

    it('tells nobody of an invite that comes after the cancel of a later place', async () => {
      const write = writerOf();
      await write(cancel(2));
      await write(invite(1));
      expect(await told()).toEqual([]);
      expect(await list()).toMatchObject({ items: [], unread_count: 0, version: 0 });
    });

    it.each([[[invite(1), cancel(2)]], [[cancel(2), invite(1)]]])(
      'tells nobody where both are in one batch',
      async (steps) => {
        await Promise.all(steps.map(writerOf()));
        expect(await told()).toEqual([]);
        expect(await list()).toMatchObject({ items: [], version: 0 });
      },
    );

    it('opens a new invite after the cancel', async () => {
      const write = writerOf();
      for (const step of [invite(1), cancel(2), invite(3)]) await write(step);
      expect(await told()).toEqual(['new chess', 'withdrawn chess', 'new chess']);
      expect(await list()).toMatchObject({ items: [{ withdrawn: false }], unread_count: 1, version: 3 });
    });

    it('leaves other communities, targets and audiences alone', async () => {
      const write = writerOf();
      await write(invite(1));
      await write(cancel(2, { community: 'go' }));
      await write(cancel(3, { target: 'tim' }));
      await write({ ...cancel(4), audience: 'globex' });
      expect(await told()).toEqual(['new chess']);
      expect(await list()).toMatchObject({ unread_count: 1 });
    });

    it('counts a read invite out of the list, and not twice out of the unread', async () => {
      const write = writerOf();
      await write(message(1));
      await write(invite(2));
      await env.query(`UPDATE notifier.notification SET read = true WHERE invited_to IS NOT NULL`);
      await env.query(`UPDATE notifier.inbox SET unread_count = 1`);
      await write(cancel(3));
      expect(await list()).toMatchObject({ items: [{ category: 'external' }], unread_count: 1 });
    });

    it('takes the same cancel, published again, as the one it has', async () => {
      const write = writerOf();
      for (const step of [invite(1), cancel(2), invite(3)]) await write(step);
      await write({ ...cancel(4), id: 'e2' });
      expect(await list()).toMatchObject({ unread_count: 1, version: 3 });
    });

    it('ends in the same state whatever the order, the batches and the replicas', async () => {
      const step = fc.constantFrom(invite, cancel);
      const history = fc
        .array(step, { minLength: 1, maxLength: 7 })
        .map((steps) => steps.map((make, i) => make(i + 1)));
      const schedule = history.chain((steps) =>
        fc.tuple(
          fc.constant(steps),
          fc.shuffledSubarray(steps, { minLength: steps.length }),
          fc.array(fc.tuple(fc.nat(1), fc.boolean()), { minLength: steps.length, maxLength: steps.length }),
        ),
      );
      await fc.assert(
        fc
          .asyncProperty(schedule, async ([steps, order, choices]) => {
            const writers = [writerOf(0), writerOf(1)];
            const running: Promise<void>[] = [];
            for (const [i, next] of order.entries()) {
              const [replica, wait] = choices[i]!;
              running.push(writers[replica]!(next));
              if (wait) await Promise.all(running);
            }
            await Promise.all(running);

            const last = steps.findLast(({ wanted }) => wanted.invitation?.kind === 'cancelled')?.at ?? 0;
            const open = steps
              .filter(({ wanted, at }) => wanted.notice && at > last)
              .map(({ at }) => `e${at}`);
            const { items, unread_count } = await list();
            expect(unread_count).toBe(open.length);
            const rows = await env.query<{ id: string; event_id: string; withdrawn: boolean }>(
              'SELECT id, event_id, withdrawn FROM notifier.notification ORDER BY ordinal DESC',
            );
            expect(rows.filter(({ withdrawn }) => !withdrawn).map(({ event_id }) => event_id)).toEqual(
              open.reverse(),
            );
            expect(items.map(({ id }) => id)).toEqual(
              rows.filter(({ withdrawn }) => !withdrawn).map(({ id }) => id),
            );
            await updatesOf().relay();
            // Whoever heard of an invite knows how it ended.
            const heard = await env.told();
            for (const { id, withdrawn } of rows) {
              const about = heard
                .map(({ message: { notification, ...created } }) => notification ?? created)
                .filter((notification) => notification.id === id)
                .map((notification) => notification.withdrawn);
              expect(withdrawn ? [[], [false, true]] : [[false]]).toContainEqual(about);
            }
            expect(await env.query('SELECT * FROM notifier.inbox_update')).toEqual([]);
          })
          .afterEach(() => env.clear()),
        { numRuns: 40 },
      );
    }, 120_000);

    it('never lets both pass by one another in two replicas', async () => {
      const [first, second] = [writerOf(0), writerOf(1)];
      const communities = Array.from({ length: 150 }, (_, i) => `c${i}`);
      await Promise.all(
        communities.flatMap((community, i) => {
          const steps = [
            () => first(invite(2 * i + 1, { community })),
            () => second(cancel(2 * i + 2, { community })),
          ];
          return (i % 2 ? steps : steps.reverse()).map((step) => step());
        }),
      );
      expect(await list()).toMatchObject({ items: [], unread_count: 0 });
      const open = await env.query('SELECT 1 FROM notifier.notification WHERE NOT withdrawn');
      expect(open).toEqual([]);
    });
  });

  describe('where something fails', () => {
    /** A way to the bus that is cut after so many publishes: before, or after, the event is stored. */
    const cutAfter = (count: number, stored: boolean): Bus['publish'] => {
      let left = count;
      return async (draft): Promise<Receipt> => {
        left -= 1;
        if (left >= 0) return bus.publish(draft);
        if (stored) await bus.publish(draft);
        throw AWAY;
      };
    };

    it.each([false, true])('tells after a crash what was not told, once (stored: %s)', async (stored) => {
      const steps = [message(1, ['tom', 'tim', 'tam']), invite(2), message(3)];
      const results = await Promise.allSettled(steps.map(writerOf(0, cutAfter(2, stored))));
      expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
      for (const result of results) expect(result).toMatchObject({ reason: { code: 'unavailable' } });
      await Promise.all(steps.map((step) => writerOf(1)({ ...step, tries: 2 })));

      const created = await env.created();
      expect(created).toHaveLength(5);
      expect(new Set(created.map(({ id }) => id)).size).toBe(5);
      const rows = await env.query<{ id: string }>(
        'SELECT id FROM notifier.notification WHERE emitted_at IS NOT NULL',
      );
      expect(rows.map(({ id }) => id).sort()).toEqual(created.map(({ id }) => id).sort());
      expect(await list()).toMatchObject({ unread_count: 3 });
    });

    it('relays a withdrawal that a crash left, as it would have been told before', async () => {
      await writerOf()(invite(1));
      await writerOf(0, cutAfter(0, true))(cancel(2));
      await writerOf()(message(3));
      await env.query(`UPDATE notifier.inbox_update SET recorded_at = now() - interval '1 minute'`);
      await updatesOf(1).relay();
      expect((await told()).sort()).toEqual(['new ', 'new chess', 'withdrawn chess']);
      expect((await env.told()).find(({ message: { change } }) => change)?.message).toMatchObject({
        unread_count: 0,
        version: 2,
      });
      expect(await env.query('SELECT * FROM notifier.inbox_update')).toEqual([]);
    });

    it('tells an invite that nobody came to tell before it tells its withdrawal', async () => {
      await expect(writerOf(0, cutAfter(0, false))(invite(1))).rejects.toBe(AWAY);
      await writerOf(1)(cancel(2));
      await updatesOf(1).relay();
      expect(await told()).toEqual([]);
      await writerOf(0)({ ...invite(1), tries: 2 });
      await updatesOf(1).relay();
      expect(await told()).toEqual(['new chess', 'withdrawn chess']);
    });

    it('tells the former managers too, who were found before the crash', async () => {
      const managers = (names: string[]) => ({
        ...message(1, names),
        tries: 2,
      });
      await expect(writerOf(0, cutAfter(0, false))(managers(['max']))).rejects.toBe(AWAY);
      await writerOf(1)(managers(['mia']));
      expect((await env.created()).map(({ target }) => target).sort()).toEqual(['max', 'mia']);
    });

    it('finds the one event of a batch that PostgreSQL refuses', async () => {
      // An index entry has at most some 2,700 bytes; random text cannot be compressed into it.
      const audience = Array.from({ length: 300 }, () => Math.random().toString(36)).join('');
      const steps = Array.from({ length: 60 }, (_, i) => message(i + 1, `user ${i}`));
      steps[37] = { ...steps[37]!, audience };
      const results = await Promise.allSettled(steps.map(writerOf()));
      const failures = results.flatMap((result, i) =>
        result.status === 'rejected' ? [[i, result.reason]] : [],
      );
      expect(failures).toEqual([
        [
          37,
          expect.objectContaining({
            code: 'payload_invalid',
            message: 'PostgreSQL cannot store it (SQLSTATE 54000)',
          }),
        ],
      ]);
      expect(await env.created()).toHaveLength(59);
    });

    it('fails the events of a community without known managers alone, and keeps their joins', async () => {
      const join = { notice: { ...message(0).wanted.notice!, recipients: { community: 'go' } } };
      const membership = { community: 'go', user: 'tom', present: true };
      const results = await Promise.allSettled(
        [message(1), { at: 2, wanted: { ...join, membership } }, message(3)].map(writerOf()),
      );
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
      expect(results[1]).toMatchObject({ reason: { code: 'managers_unknown' } });
      expect(await env.query('SELECT user_id FROM notifier.community_member')).toEqual([{ user_id: 'tom' }]);
    });
  });

  it('tells ten thousand recipients of one event', async () => {
    const users = Array.from({ length: 10_000 }, (_, i) => `user ${i}`);
    await writerOf()(message(1, users));
    const [{ emitted }] = (await env.query<{ emitted: number }>(
      'SELECT count(emitted_at)::int AS emitted FROM notifier.notification',
    )) as [{ emitted: number }];
    expect(emitted).toBe(10_000);
    expect((await env.jsm.streams.info('PH_GLOBAL')).state.messages).toBe(10_000);
  });

  it('gives up at once what would be more than 64 MiB for all of its recipients', async () => {
    const users = Array.from({ length: 1_000 }, (_, i) => `user ${i}`);
    const of = (bytes: number) => writerOf()(message(1, users, 'x'.repeat(bytes)));
    await expect(of(67_000)).rejects.toMatchObject({ code: 'payload_too_large' });
    expect(await env.query('SELECT * FROM notifier.notification')).toEqual([]);
    await of(60_000);
    expect((await env.jsm.streams.info('PH_GLOBAL')).state.messages).toBe(1_000);
  });

  it('notes what was told in the order of the ids, as all lock: nobody waits in a circle', async () => {
    // Written by target, and so the other way round.
    await expect(writerOf(0, () => Promise.reject(AWAY))(message(1, ['zoe', 'tom', 'ann']))).rejects.toBe(
      AWAY,
    );
    const rows = await env.query<{ id: string }>('SELECT id FROM notifier.notification ORDER BY id');
    const ids = rows.map(({ id }) => id);
    await env.query('BEGIN');
    await env.query('SELECT FROM notifier.notification WHERE id = $1 FOR UPDATE', [ids[0]]);
    const noting = new Store(sources[0]!).markEmitted(ids);
    for (let waits = false; !waits; ) {
      [{ waits }] = await sources[1]!.query(
        `SELECT count(*) > 0 AS waits FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
    }
    const free = await sources[1]!.query('SELECT id FROM notification ORDER BY id FOR UPDATE SKIP LOCKED');
    expect(free).toEqual(rows.slice(1));
    await env.query('COMMIT');
    await noting;
    expect(await env.query('SELECT FROM notifier.notification WHERE emitted_at IS NULL')).toEqual([]);
  });

  it('tells in the order of the stream', async () => {
    await Promise.all(Array.from({ length: 250 }, (_, i) => writeObject(i)).map(writerOf()));
    expect((await env.created()).map(({ data }) => data)).toEqual(Array.from({ length: 250 }, (_, i) => i));
    function writeObject(i: number): Step {
      return message(i + 1, 'tom', i);
    }
  });

  it('keeps any text as it came', async () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(
        '\0',
        '\ud800',
        '💌',
        '*',
        '>',
        'a.b',
        '"',
        "'; DROP TABLE x --",
        '{}',
        '\\u0000',
        'x'.repeat(10_000),
      ),
    );
    const id = text
      .filter((value) => value !== '' && value.isWellFormed() && !value.includes('\0'))
      .map((value) => value.slice(0, 60))
      .filter((value) => value.isWellFormed());
    let at = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.record({ target: id, author: id, object: id, action: text, title: text, link: text, icon: text }),
        fc.jsonValue(),
        async (payload, data) => {
          at += 1;
          const wanted = external({ ...payload, data: { data, text: payload.title } });
          await writerOf()({ at, wanted });
          const [item] = (await list(payload.target)).items;
          expect(item).toEqual(JSON.parse(JSON.stringify({ ...item, ...wanted.notice?.content })));
          expect(item?.target).toBe(payload.target);
          const { state } = await env.jsm.streams.info('PH_GLOBAL');
          const stored = await env.jsm.streams.getMessage('PH_GLOBAL', { seq: state.last_seq });
          expect(stored?.json()).toEqual(item);
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);
});

describe("an event's id as a key", () => {
  it('is the id, or its SHA-256 where it is too long or cannot be stored', () => {
    expect(eventKey('any id: *>.')).toBe('any id: *>.');
    expect(eventKey('x'.repeat(255))).toBe('x'.repeat(255));
    expect(eventKey('x'.repeat(256))).toMatch(/^[0-9a-f]{64}$/);
    expect(eventKey('a\0b')).toMatch(/^[0-9a-f]{64}$/);
    expect(eventKey('x'.repeat(256))).not.toBe(eventKey('x'.repeat(257)));
  });
});
