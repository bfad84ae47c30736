import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { BusEvent, Delivery } from '@posthorn/bus';
import { type Bus, JetStreamBus } from '@posthorn/bus/platform';
import { type InboxUpdate, type ListNotificationsRequest, ProblemError } from '@posthorn/contracts';
import { openDatabase, withTransaction } from '@posthorn/database';
import { Metrics } from '@posthorn/service';
import fc from 'fast-check';
import type { DataSource } from 'typeorm';
import { type Environment, startEnvironment } from '../../test/environment.js';
import { NotifierMetrics } from '../metrics.js';
import { Expiry } from '../retention/expiry.js';
import { SCHEMA } from '../schema.js';
import { external, invitationCancelled, invited, type Wanted } from '../worker/notice.js';
import { Store } from '../worker/store.js';
import { Writer } from '../worker/writer.js';
import { InboxChanges } from './inbox-changes.js';
import { InboxMarks } from './inbox-marks.js';
import { InboxReader } from './inbox-reader.js';
import { InboxUpdates } from './inbox-updates.js';

const AWAY = new ProblemError('unavailable', 'The bus is away');
const TOM = { audience: 'acme', user: 'tom' } as const;
const OFFSET = 1_800_000_000_000_000_000n;

describe('the inbox', () => {
  let env: Environment;
  let bus: JetStreamBus;
  const sources: DataSource[] = [];
  const warnings: unknown[] = [];
  let place = 0;

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
  afterEach(async () => {
    warnings.length = 0;
    await env.clear();
  });
  afterAll(async () => {
    bus.close();
    for (const source of sources) await source.destroy();
    await env[Symbol.asyncDispose]();
  });

  /** One replica: `publish` stands for its way to the bus. */
  const replica = (index = 0, publish: Bus['publish'] = (draft) => bus.publish(draft)) => {
    const source = sources[index]!;
    const logger = { warn: (fields: unknown) => warnings.push(fields) };
    const updates = new InboxUpdates({ source, bus: { publish }, logger });
    const writer = new Writer({
      store: new Store(source),
      bus: { publish },
      updates,
      metrics: new NotifierMetrics(new Metrics('notifier')),
      expiry: new Expiry(86_400_000),
      batchSize: 100,
    });
    const write = (wanted: Wanted, traceparent?: string) => {
      place += 1;
      return writer.write(
        { audience: 'acme', id: `e${place}`, traceparent } as BusEvent,
        { tries: 1, storedAt: OFFSET + BigInt(place) } as Delivery,
        wanted,
      );
    };
    return { write, updates, marks: new InboxMarks(source, updates) };
  };
  const away: Bus['publish'] = () => Promise.reject(AWAY);
  const message = (n: unknown, target: string | string[] = 'tom') =>
    external({ target, action: 'a', data: n });
  const fill = async (count: number, target = 'tom') => {
    const { write } = replica();
    await Promise.all(Array.from({ length: count }, (_, i) => write(message(i, target))));
  };
  const list = (request: Partial<ListNotificationsRequest> = {}) =>
    new InboxReader(sources[0]!).list({ ...TOM, limit: 100, ...request });
  const count = () => new InboxReader(sources[0]!).count(TOM);
  /** The updates that were told, in the order of the stream. */
  const told = async (): Promise<InboxUpdate[]> =>
    (await env.told()).filter(({ topic }) => topic.endsWith('updated')).map(({ message }) => message);
  const left = () =>
    env.query<{ id: string; version: string }>('SELECT id, version FROM notifier.inbox_update');
  /** As if the process that recorded them had been gone for a while. */
  const age = () => env.query(`UPDATE notifier.inbox_update SET recorded_at = now() - interval '1 minute'`);

  describe('read in pages', () => {
    it('gives each notification that stays in it once, whatever comes and goes meanwhile', async () => {
      await fill(60);
      const { write, marks } = replica(1);
      const seen: unknown[] = [];
      const stays = new Set(Array.from({ length: 60 }, (_, i) => i));
      let cursor: string | undefined;
      do {
        const page = await list({ limit: 7, ...(cursor ? { cursor } : {}) });
        seen.push(...page.items.map(({ data }) => data));
        cursor = page.next_cursor ?? undefined;
        const [first, second, third] = page.items;
        await write(message('new'));
        await marks.markOne({ ...TOM, id: first!.id, flag: 'read', value: true });
        // The place of a page's end need not be there any more.
        for (const gone of [second, third, page.items.at(-1)]) {
          if (gone) await marks.markOne({ ...TOM, id: gone.id, flag: 'acknowledged', value: true });
        }
      } while (cursor);
      expect(seen).toEqual([...stays].reverse());
    });

    it('lists the read and the unread ones apart, and both together in their order', async () => {
      await fill(30);
      const all = (await list()).items;
      const odd = all.filter((_, i) => i % 2 === 1).map(({ id }) => id);
      await replica().marks.markMany({ ...TOM, ids: odd, value: true });
      const pages = async (read?: boolean) => {
        const ids: string[] = [];
        let cursor: string | null = null;
        do {
          const page = await list({
            limit: 4,
            ...(read === undefined ? {} : { read }),
            ...(cursor ? { cursor } : {}),
          });
          expect(page.unread_count).toBe(15);
          ids.push(...page.items.map(({ id }) => id));
          cursor = page.next_cursor;
        } while (cursor);
        return ids;
      };
      expect(await pages(true)).toEqual(odd);
      expect(await pages(false)).toEqual(all.map(({ id }) => id).filter((id) => !odd.includes(id)));
      expect(await pages()).toEqual(all.map(({ id }) => id));
    });
  });

  describe('with one notification marked', () => {
    it.each([
      ['read', { items: [{ read: true }], unread_count: 0 }],
      ['acknowledged', { items: [], unread_count: 0 }],
    ] as const)('tells the inbox as it is then (%s)', async (flag, expected) => {
      await fill(1);
      const { marks, updates } = replica();
      const [item] = (await list()).items;
      const marked = await marks.markOne({ ...TOM, id: item!.id, flag, value: true });
      expect(marked).toEqual({ ...item, [flag]: true });
      expect(await list()).toMatchObject({ ...expected, version: 2 });
      await marks.markOne({ ...TOM, id: item!.id, flag, value: false });
      expect(await list()).toMatchObject({ items: [item], unread_count: 1, version: 3 });
      await updates.settled();
      expect(await told()).toEqual([
        { target: 'tom', change: flag, notification: marked, unread_count: 0, version: 2 },
        { target: 'tom', change: `un${flag}`, notification: item, unread_count: 1, version: 3 },
      ]);
      expect(await left()).toEqual([]);
    });

    it('changes nothing, and tells nobody, where it is so already', async () => {
      await fill(1);
      const { marks, updates } = replica();
      const { id } = (await list()).items[0]!;
      await marks.markOne({ ...TOM, id, flag: 'read', value: false });
      await marks.markOne({ ...TOM, id, flag: 'acknowledged', value: false });
      expect(await marks.markMany({ ...TOM, ids: [id], value: false })).toEqual({
        updated: 0,
        unread_count: 1,
        version: 1,
      });
      await updates.settled();
      expect(await told()).toEqual([]);
    });

    it('tells nobody apart who asks for what is not theirs', async () => {
      await fill(1);
      const { id } = (await list()).items[0]!;
      const { marks } = replica();
      const ask = (over: object) =>
        marks.markOne({ ...TOM, id, flag: 'read', value: true, ...over }).catch((error: ProblemError) => ({
          code: error.code,
          detail: error.detail,
        }));
      const answers = await Promise.all([
        ask({ user: 'tim' }),
        ask({ audience: 'globex' }),
        ask({ id: '0190a5a0-0000-7000-8000-000000000000' }),
        ask({ id: 'x' }),
        ask({ id: `${id}\0` }),
        ask({ id: id.toUpperCase() }),
      ]);
      expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
      expect(answers[0]).toMatchObject({ code: 'notification_not_found' });
      expect(await count()).toEqual({ unread_count: 1, version: 1 });
    });

    it('tells of a withdrawal within the trace of its cause', async () => {
      const { write } = replica();
      const pair = { author: 'ann', target: 'tom', community: 'chess' };
      const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
      await write(invited(pair));
      await write(invitationCancelled(pair), traceparent);
      expect((await env.told()).map((event) => event.traceparent)).toEqual([undefined, traceparent]);
    });

    it('leaves a withdrawn one as it is', async () => {
      const { write, marks } = replica();
      const pair = { author: 'ann', target: 'tom', community: 'chess' };
      await write(invited(pair));
      const [invite] = (await list()).items;
      await write(invitationCancelled(pair));
      const { id } = invite!;
      for (const flag of ['read', 'acknowledged'] as const) {
        expect(await marks.markOne({ ...TOM, id, flag, value: true })).toEqual({
          ...invite,
          withdrawn: true,
        });
      }
      expect(await marks.markMany({ ...TOM, ids: [id], value: true })).toMatchObject({ updated: 0 });
      expect(await count()).toEqual({ unread_count: 0, version: 2 });
    });

    it('waits with the update until the notification itself was told', async () => {
      await expect(replica(0, away).write(message(1))).rejects.toBe(AWAY);
      const { id } = (await list()).items[0]!;
      const { marks, updates } = replica();
      await marks.markOne({ ...TOM, id, flag: 'read', value: true });
      await marks.markMany({ ...TOM, ids: [id], value: false });
      await updates.settled();
      await updates.relay();
      expect(await env.told()).toEqual([]);
      const retried = replica(1);
      place -= 1;
      await retried.write(message(1));
      await updates.relay();
      expect(
        (await env.told()).map(({ topic, message: { change, version } }) => [topic, change, version]),
      ).toEqual([
        ['usernotification:created', undefined, undefined],
        ['usernotification:updated', 'read', 2],
        ['usernotification:updated', 'unread', 3],
      ]);
    });
  });

  describe('with several marked', () => {
    it('marks those of the inbox, passes over the rest, and tells once', async () => {
      await fill(3);
      await fill(1, 'tim');
      const own = (await list()).items.map(({ id }) => id);
      const [foreign] = (await list({ user: 'tim' })).items.map(({ id }) => id);
      const { marks, updates } = replica();
      const ids = [own[0]!, own[1]!, own[0]!, foreign!, 'x', '0190a5a0-0000-7000-8000-000000000000'];
      expect(await marks.markMany({ ...TOM, ids, value: true })).toEqual({
        updated: 2,
        unread_count: 1,
        version: 4,
      });
      await updates.settled();
      const [update, ...more] = await told();
      expect(more).toEqual([]);
      expect(update).toEqual({
        target: 'tom',
        change: 'read',
        ids: expect.any(Array),
        unread_count: 1,
        version: 4,
      });
      expect([...update!.ids!].sort()).toEqual(own.slice(0, 2).sort());
      expect(await list({ user: 'tim' })).toMatchObject({ unread_count: 1, version: 1 });
    });

    it('marks all in steps, and leaves what comes meanwhile', async () => {
      await fill(2_300);
      const { marks, updates, write } = replica();
      const steps: [updated: number, unread: number, version: number][] = [];
      let cursor: string | null = null;
      do {
        const step: Awaited<ReturnType<InboxMarks['markAll']>> = await marks.markAll({
          ...TOM,
          value: true,
          ...(cursor ? { cursor } : {}),
        });
        steps.push([step.updated, step.unread_count, step.version]);
        cursor = step.next_cursor;
        if (steps.length === 1) await write(message('new'));
      } while (cursor);
      expect(steps).toEqual([
        [1_000, 1_300, 2_301],
        [1_000, 301, 2_303],
        [300, 1, 2_304],
      ]);
      expect(await list({ read: false })).toMatchObject({ items: [{ data: 'new' }] });
      await updates.settled();
      expect((await told()).map(({ ids }) => ids?.length)).toEqual([1_000, 1_000, 300]);
    });
  });

  describe('whatever happens at the same time', () => {
    /** What somebody does: to everybody, to one user's invitation, or to that user's inbox. */
    interface Step {
      readonly kind: 'message' | 'invite' | 'cancel' | 'read' | 'acknowledged' | 'several' | 'all' | 'remove';
      readonly user: 'tom' | 'tim';
      /** Which community, or which notification, or how many. */
      readonly which: number;
      readonly value: boolean;
    }
    const action: fc.Arbitrary<Step> = fc.record({
      kind: fc.constantFrom(
        'message',
        'invite',
        'cancel',
        'read',
        'acknowledged',
        'several',
        'all',
        'remove',
      ),
      user: fc.constantFrom('tom', 'tim'),
      which: fc.nat(20),
      value: fc.boolean(),
    });

    it('counts what is unread exactly at every commit, and numbers each event', async () => {
      await fc.assert(
        fc
          .asyncProperty(
            fc.array(fc.tuple(action, fc.nat(1), fc.boolean()), { minLength: 5, maxLength: 60, size: 'max' }),
            async (steps) => {
              const replicas = [replica(0), replica(1)] as const;
              let over = false;
              const watch = (async () => {
                for (;;) {
                  const last = over;
                  const wrong: Record<string, number>[] = await sources[1]!.query(
                    `SELECT i.*, (SELECT count(*)::int FROM notifier.notification n
                       WHERE n.audience = i.audience AND n.target = i.user_id
                         AND NOT n.read AND NOT n.acknowledged AND NOT n.withdrawn) AS counted
                     FROM notifier.inbox i`,
                  );
                  for (const { unread_count, counted } of wrong) {
                    expect(unread_count).toBe(counted);
                  }
                  if (last) return;
                }
              })();
              const running: Promise<unknown>[] = [];
              for (const [step, index, wait] of steps) {
                running.push(act(replicas[index]!, step));
                if (wait) await Promise.all(running);
              }
              await Promise.all(running);
              over = true;
              await watch;
              for (const { updates } of replicas) await updates.settled();
              await age();
              await Promise.all(replicas.map(({ updates }) => updates.relay()));
              expect(await left()).toEqual([]);

              const heard = await env.told();
              for (const owner of ['tom', 'tim']) {
                const { unread_count, version } = await new InboxReader(sources[0]!).count({
                  audience: 'acme',
                  user: owner,
                });
                const own = heard.filter(({ message: { target } }) => target === owner);
                expect(own).toHaveLength(version);
                const versions = own.flatMap(({ message }) => ('change' in message ? [message.version] : []));
                expect(new Set(versions).size).toBe(versions.length);
                const newest = own.find(({ message }) => message.version === version);
                if (newest) expect(newest.message.unread_count).toBe(unread_count);
                // An update is never ahead of what it is about.
                own.forEach(({ message }, i) => {
                  const about = message.notification ? [message.notification.id] : (message.ids ?? []);
                  for (const id of about) {
                    expect(own.slice(0, i).map((event) => event.id)).toContain(id);
                  }
                });
              }
            },
          )
          .afterEach(() => env.clear()),
        { numRuns: 20 },
      );
    }, 180_000);

    async function act(
      { write, marks, updates }: ReturnType<typeof replica>,
      { kind, user, which, value }: Step,
    ): Promise<unknown> {
      const pair = { author: 'ann', target: user, community: `c${which % 2}` };
      if (kind === 'message') return write(message(0, value ? ['tom', 'tim'] : user));
      if (kind === 'invite') return write(invited(pair));
      if (kind === 'cancel') return write(invitationCancelled(pair));
      const inbox = { audience: 'acme', user };
      if (kind === 'all') return marks.markAll({ ...inbox, value });
      const rows: { id: string }[] = await sources[0]!.query(
        'SELECT id FROM notification WHERE target = $1 ORDER BY id LIMIT 21',
        [user],
      );
      const ids = rows.map(({ id }) => id);
      if (kind === 'several') return marks.markMany({ ...inbox, ids: ids.slice(0, which), value });
      const id = ids[which];
      if (!id) return;
      if (kind === 'remove') return updates.announce(await remove(inbox, id));
      return marks
        .markOne({ ...inbox, id, flag: kind, value })
        .catch((error: ProblemError) => expect(error.code).toBe('notification_not_found'));
    }

    /** As retention removes: only what was told; and its owner hears of what was listed. */
    async function remove(inbox: { audience: string; user: string }, id: string) {
      const { updates } = await withTransaction(sources[0]!, async (tx) => {
        const [gone]: [{ listed: boolean; unread: boolean }[], number] = await tx.query(
          `DELETE FROM notification WHERE id = $1 AND emitted_at IS NOT NULL
           RETURNING NOT acknowledged AND NOT withdrawn AS listed,
                     NOT read AND NOT acknowledged AND NOT withdrawn AS unread`,
          [id],
        );
        const inboxes = new InboxChanges();
        for (const { listed, unread } of gone) {
          // An invite that came after its cancel was told to nobody.
          if (listed) inboxes.updated({ ...inbox, change: 'removed', unread: unread ? -1 : 0, ids: [id] });
        }
        return inboxes.record(tx);
      });
      return updates;
    }
  });

  describe('where something fails', () => {
    it('tells after an outage what it could not, in the order of the versions', async () => {
      await fill(2);
      const { marks, updates } = replica(0, away);
      const ids = (await list()).items.map(({ id }) => id);
      for (const id of ids) await marks.markOne({ ...TOM, id, flag: 'read', value: true });
      await marks.markOne({ ...TOM, id: ids[0]!, flag: 'acknowledged', value: true });
      await updates.settled();
      expect(await told()).toEqual([]);
      const waiting = await left();
      await age();
      await expect(updates.relay()).rejects.toBe(AWAY);
      expect(await left()).toHaveLength(3);
      await replica(1).updates.relay();
      expect((await told()).map(({ version }) => version)).toEqual([3, 4, 5]);
      const events = (await env.told()).filter(({ topic }) => topic.endsWith('updated'));
      expect(events.map(({ id }) => id).sort()).toEqual(waiting.map(({ id }) => id).sort());
      expect(await left()).toEqual([]);
    });

    it('tells once what two replicas relay at the same time', async () => {
      await fill(400);
      const { marks, updates } = replica(0, away);
      for (const { id } of (await list()).items) {
        await marks.markOne({ ...TOM, id, flag: 'read', value: true });
      }
      for (const value of [true, false]) await marks.markAll({ ...TOM, value });
      await updates.settled();
      await age();
      await Promise.all([replica(0).updates.relay(), replica(1).updates.relay()]);
      expect(new Set((await told()).map(({ version }) => version)).size).toBe(102);
      expect(await told()).toHaveLength(102);
    });

    it('leaves to the process that has recorded an update the first seconds to tell it', async () => {
      await fill(1);
      const { marks, updates } = replica(0, away);
      const { id } = (await list()).items[0]!;
      await marks.markOne({ ...TOM, id, flag: 'read', value: true });
      await updates.settled();
      await replica(1).updates.relay();
      expect(await left()).toHaveLength(1);
    });

    it('gives up, and says so, where the audience is gone', async () => {
      await replica().write(message(1));
      const { id } = (await list()).items[0]!;
      const gone = new ProblemError('audience_not_found', 'gone');
      const { marks, updates } = replica(0, () => Promise.reject(gone));
      await marks.markOne({ ...TOM, id, flag: 'read', value: true });
      await updates.settled();
      expect(await left()).toEqual([]);
      expect(warnings).toMatchObject([{ err: gone, audience: 'acme' }]);
    });

    it('changes nothing of the count where the transaction fails', async () => {
      await fill(1);
      await expect(
        withTransaction(sources[0]!, async (tx) => {
          const inboxes = new InboxChanges();
          inboxes.updated({ ...TOM, change: 'removed', unread: -1, ids: [] });
          await inboxes.record(tx);
          throw AWAY;
        }),
      ).rejects.toBe(AWAY);
      expect(await count()).toEqual({ unread_count: 1, version: 1 });
      expect(await left()).toEqual([]);
    });
  });
});
