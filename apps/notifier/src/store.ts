/**
 * A batch of events in PostgreSQL: one transaction, one statement for each kind of row, however many events
 * there are.
 *
 * Every transaction takes its locks in one order, and rows of one table sorted: members, invitations,
 * notifications, inboxes. What PostgreSQL still finds to be a deadlock is run again.
 */
import type { InboxUpdate, UserNotification } from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { type NotificationRow, type StoredContent, userNotification } from './entities.js';
import { ManagersUnknown } from './failure.js';
import type { Content, ManagersOf, Wanted } from './notice.js';

/** An event with what it wants. */
export interface Work {
  readonly audience: string;
  /** At most 255 characters. */
  readonly eventId: string;
  /** When the event was stored, in nanoseconds since 1970: grows along the stream. */
  readonly ordinal: bigint;
  /** Whether the event was delivered before, and may have been stored in part or whole. */
  readonly redelivered: boolean;
  readonly wanted: Wanted;
  /** The notice's content, as it is stored. */
  readonly content: string | undefined;
}

/** A stored notification of which its recipient has yet to be told. */
export interface Created {
  readonly id: string;
  readonly audience: string;
  readonly message: UserNotification;
}

/** A withdrawn notification of which its recipient has yet to be told. */
export interface Withdrawn {
  /** The id of the event that tells it, not of the notification. */
  readonly id: string;
  readonly audience: string;
  readonly message: InboxUpdate;
}

/** What became of an event. */
export interface Stored {
  /** Why the event could not be handled, while its neighbours could. */
  failure: Error | undefined;
  /** To be told first. */
  readonly created: Created[];
  readonly withdrawn: Withdrawn[];
  /** Notifications that were not there before. */
  written: number;
}

/** How many recipients one INSERT takes: it has to end within the time that a statement has. */
const ROWS = 2_000;

/** The part of a content that is stored as JSON; the rest has columns. */
export function contentJson({ category, interactive, ...content }: Content): string {
  return JSON.stringify(content satisfies StoredContent);
}

export class Store {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /** Stores what the events want, all or nothing; the answer has one element for each event, in their order. */
  apply(batch: readonly Work[]): Promise<Stored[]> {
    return withTransaction(this.#source, (tx) => applyBatch(tx, batch));
  }

  /** Notes that their recipients were told. */
  async markEmitted(created: readonly string[], withdrawn: readonly string[]): Promise<void> {
    await withTransaction(this.#source, async (tx) => {
      if (created.length > 0) {
        await tx.query(
          `UPDATE notification SET emitted_at = now() WHERE id = ANY ($1::uuid[]) AND emitted_at IS NULL`,
          [created],
        );
      }
      if (withdrawn.length > 0) {
        await tx.query(`DELETE FROM withdrawal WHERE id = ANY ($1::uuid[])`, [withdrawn]);
      }
    });
  }
}

async function applyBatch(tx: EntityManager, batch: readonly Work[]): Promise<Stored[]> {
  const stored = batch.map((): Stored => ({ failure: undefined, created: [], withdrawn: [], written: 0 }));
  await followMembers(tx, batch);
  const invitations = await changeInvitations(tx, batch);
  const candidates = await candidatesOf(tx, batch, stored, invitations);
  const inboxes = new Inboxes();
  await insertNotifications(tx, batch, candidates, stored, inboxes);
  await findUnannounced(tx, batch, candidates, stored);
  const withdrawn = await withdrawInvites(tx, invitations, inboxes);
  const counts = await inboxes.update(tx);
  await recordWithdrawals(tx, withdrawn, counts);
  await findWithdrawals(tx, batch, stored);
  return stored;
}

/** Applies joins and leaves, each only where it is the newest word on that member. */
async function followMembers(tx: EntityManager, batch: readonly Work[]): Promise<void> {
  const changes = batch.flatMap(({ audience, ordinal, wanted: { membership } }) =>
    membership ? [{ audience, ordinal, ...membership }] : [],
  );
  if (changes.length === 0) return;
  await tx.query(
    `INSERT INTO community_member AS m (audience, community, user_id, present, ordinal)
     SELECT DISTINCT ON (1, 2, 3) c.audience, c.community, c.user_id, c.present, c.ordinal
     FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[])
       AS c (audience, community, user_id, present, ordinal)
     ORDER BY 1, 2, 3, c.ordinal DESC
     ON CONFLICT (audience, community, user_id) DO UPDATE
       SET present = excluded.present, ordinal = excluded.ordinal
       WHERE m.ordinal < excluded.ordinal`,
    [
      changes.map(({ audience }) => audience),
      changes.map(({ community }) => community),
      changes.map(({ user }) => user),
      changes.map(({ present }) => present),
      changes.map(({ ordinal }) => String(ordinal)),
    ],
  );
}

/** A user's invitation into a community. */
interface Invitation {
  readonly audience: string;
  readonly community: string;
  readonly target: string;
  /** The place in the stream of the latest cancel; 0: never cancelled. */
  readonly cancelled: bigint;
  /** The event id of a cancel of this batch, else empty. */
  readonly cancel: string;
}

/**
 * Notes cancels, and locks the invitations that the batch is about: an invite and its cancel in two replicas
 * come one after the other, whichever is first. The same cancel published once more counts where it was first.
 */
async function changeInvitations(
  tx: EntityManager,
  batch: readonly Work[],
): Promise<ReadonlyMap<string, Invitation>> {
  const changes = new Map<string, Invitation>();
  const seen = new Set<string>();
  for (const { audience, eventId, ordinal, wanted } of batch) {
    if (!wanted.invitation) continue;
    const { kind, community, target } = wanted.invitation;
    const key = keyOf(audience, community, target);
    const change = changes.get(key) ?? { audience, community, target, cancelled: 0n, cancel: '' };
    const again = seen.has(keyOf(key, eventId));
    seen.add(keyOf(key, eventId));
    const newer = kind === 'cancelled' && !again && ordinal > change.cancelled;
    changes.set(key, newer ? { ...change, cancelled: ordinal, cancel: eventId } : change);
  }
  if (changes.size === 0) return changes;
  const rows = [...changes.values()];
  const places: { audience: string; community: string; target: string; cancelled: string }[] = await tx.query(
    `INSERT INTO invitation AS i (audience, community, target, cancelled, cancelled_by)
     SELECT *
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
     ORDER BY 1, 2, 3
     ON CONFLICT (audience, community, target) DO UPDATE SET
       cancelled = CASE WHEN excluded.cancelled_by = i.cancelled_by THEN i.cancelled
                        ELSE GREATEST(i.cancelled, excluded.cancelled) END,
       cancelled_by = CASE WHEN excluded.cancelled > i.cancelled THEN excluded.cancelled_by
                           ELSE i.cancelled_by END
     RETURNING audience, community, target, cancelled`,
    [
      rows.map(({ audience }) => audience),
      rows.map(({ community }) => community),
      rows.map(({ target }) => target),
      rows.map(({ cancelled }) => String(cancelled)),
      rows.map(({ cancel }) => cancel),
    ],
  );
  for (const { audience, community, target, cancelled } of places) {
    const key = keyOf(audience, community, target);
    changes.set(key, { ...changes.get(key)!, cancelled: BigInt(cancelled) });
  }
  return changes;
}

/** A notification that is to be there after the batch. */
interface Candidate extends NotificationRow {
  readonly audience: string;
  /** The index of its event in the batch. */
  readonly event: number;
}

/** The notifications that the events want, sorted by the unique key; events without known managers fail. */
async function candidatesOf(
  tx: EntityManager,
  batch: readonly Work[],
  stored: readonly Stored[],
  invitations: ReadonlyMap<string, Invitation>,
): Promise<Candidate[]> {
  const managers = await knownManagers(tx, batch);
  const candidates: Candidate[] = [];
  batch.forEach(({ audience, ordinal, wanted: { notice, invitation } }, event) => {
    if (!notice) return;
    const recipients = recipientsOf(audience, notice.recipients, managers);
    if (!recipients) {
      stored[event]!.failure = new ManagersUnknown((notice.recipients as ManagersOf).community);
      return;
    }
    const createdAt = new Date(Number(ordinal / 1_000_000n));
    const { category, interactive, ...content } = notice.content;
    const withdrawn =
      invitation !== undefined &&
      invitations.get(keyOf(audience, invitation.community, invitation.target))!.cancelled > ordinal;
    for (const target of recipients) {
      candidates.push({
        id: uuidv7(),
        audience,
        event,
        target,
        category,
        interactive,
        content,
        createdAt,
        withdrawn,
      });
    }
  });
  const order = (a: Candidate, b: Candidate) =>
    compare(a.audience, b.audience) ||
    compare(batch[a.event]!.eventId, batch[b.event]!.eventId) ||
    compare(a.target, b.target);
  return candidates.sort(order);
}

async function knownManagers(
  tx: EntityManager,
  batch: readonly Work[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const asked = batch.flatMap(({ audience, wanted: { notice } }) =>
    notice && 'community' in notice.recipients ? [[audience, notice.recipients.community] as const] : [],
  );
  if (asked.length === 0) return new Map();
  const rows: { audience: string; id: string; managers: string[] }[] = await tx.query(
    `SELECT c.audience, c.id, c.managers
     FROM community c
     WHERE (c.audience, c.id) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND c.managers IS NOT NULL`,
    [asked.map(([audience]) => audience), asked.map(([, community]) => community)],
  );
  return new Map(rows.map((row) => [keyOf(row.audience, row.id), row.managers]));
}

function recipientsOf(
  audience: string,
  recipients: readonly string[] | ManagersOf,
  managers: ReadonlyMap<string, readonly string[]>,
): readonly string[] | undefined {
  if (!('community' in recipients)) return recipients;
  const { community, except } = recipients;
  return managers.get(keyOf(audience, community))?.filter((manager) => manager !== except);
}

/** Inserts what is not there yet, and counts it in. An invite that was cancelled since is told to nobody. */
async function insertNotifications(
  tx: EntityManager,
  batch: readonly Work[],
  candidates: readonly Candidate[],
  stored: readonly Stored[],
  inboxes: Inboxes,
): Promise<void> {
  for (let start = 0; start < candidates.length; start += ROWS) {
    const rows = candidates.slice(start, start + ROWS);
    const events = [...new Map(rows.map((row) => [row.event, row])).values()];
    const places = new Map(events.map(({ event }, i) => [event, i + 1]));
    const inserted: { id: string }[] = await tx.query(
      `INSERT INTO notification (id, audience, event_id, target, category, interactive, content, invited_to,
                                 withdrawn, created_at, ordinal, emitted_at)
       SELECT r.id, e.audience, e.event_id, r.target, e.category, e.interactive, e.content, e.invited_to,
              e.withdrawn, e.created_at, e.ordinal, CASE WHEN e.withdrawn THEN now() END
       FROM unnest($1::uuid[], $2::text[], $3::int[]) WITH ORDINALITY AS r (id, target, event, place)
       JOIN unnest($4::text[], $5::text[], $6::text[], $7::boolean[], $8::json[], $9::text[], $10::boolean[],
                   $11::timestamptz[], $12::bigint[])
         WITH ORDINALITY AS e (audience, event_id, category, interactive, content, invited_to, withdrawn,
                               created_at, ordinal, place)
         ON e.place = r.event
       ORDER BY r.place
       ON CONFLICT (audience, event_id, target) DO NOTHING
       RETURNING id`,
      [
        rows.map(({ id }) => id),
        rows.map(({ target }) => target),
        rows.map(({ event }) => places.get(event)),
        events.map(({ audience }) => audience),
        events.map(({ event }) => batch[event]!.eventId),
        events.map(({ category }) => category),
        events.map(({ interactive }) => interactive),
        events.map(({ event }) => batch[event]!.content),
        events.map(({ event }) => batch[event]!.wanted.invitation?.community ?? null),
        events.map(({ withdrawn }) => withdrawn),
        events.map(({ createdAt }) => createdAt.toISOString()),
        events.map(({ event }) => String(batch[event]!.ordinal)),
      ],
    );
    const ids = new Set(inserted.map(({ id }) => id));
    for (const row of rows) {
      if (!ids.has(row.id)) continue;
      const outcome = stored[row.event]!;
      outcome.written += 1;
      if (row.withdrawn) continue;
      inboxes.change(row.audience, row.target, 1);
      outcome.created.push(createdOf(row));
    }
  }
}

/**
 * What an earlier delivery stored and did not come to tell: of events delivered before, and of those whose id
 * another event has had.
 */
async function findUnannounced(
  tx: EntityManager,
  batch: readonly Work[],
  candidates: readonly Candidate[],
  stored: readonly Stored[],
): Promise<void> {
  const wanted = new Map<number, number>();
  for (const { event } of candidates) wanted.set(event, (wanted.get(event) ?? 0) + 1);
  const events = batch.flatMap((work, event) =>
    work.wanted.notice && (work.redelivered || stored[event]!.written < (wanted.get(event) ?? 0))
      ? [{ ...work, event }]
      : [],
  );
  if (events.length === 0) return;
  const rows: StoredRow[] = await tx.query(
    `SELECT n.id, n.audience, n.event_id, n.target, n.category, n.interactive, n.content, n.created_at
     FROM notification n
     WHERE (n.audience, n.event_id) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND n.emitted_at IS NULL
     ORDER BY n.ordinal, n.id`,
    [events.map(({ audience }) => audience), events.map(({ eventId }) => eventId)],
  );
  const byEvent = groupBy(rows, (row) => keyOf(row.audience, row.event_id));
  for (const { audience, eventId, event } of events) {
    const { created } = stored[event]!;
    const known = new Set(created.map(({ id }) => id));
    for (const row of byEvent.get(keyOf(audience, eventId)) ?? []) {
      if (!known.has(row.id)) created.push(createdOf({ ...row, createdAt: row.created_at }));
    }
  }
}

interface StoredRow extends Omit<NotificationRow, 'createdAt'> {
  readonly audience: string;
  readonly event_id: string;
  readonly created_at: Date;
}

function createdOf(row: NotificationRow & { readonly audience: string }): Created {
  return { id: row.id, audience: row.audience, message: userNotification({ ...row, withdrawn: false }) };
}

/** Withdraws the invites that stand before a cancel of the batch. */
async function withdrawInvites(
  tx: EntityManager,
  invitations: ReadonlyMap<string, Invitation>,
  inboxes: Inboxes,
): Promise<WithdrawnRow[]> {
  const cancelled = [...invitations.values()].filter(({ cancel }) => cancel !== '');
  if (cancelled.length === 0) return [];
  const [rows]: [WithdrawnRow[], number] = await tx.query(
    `WITH open AS (
       SELECT n.id, c.event_id
       FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
         AS c (audience, community, target, ordinal, event_id)
       JOIN notification n ON n.audience = c.audience AND n.invited_to = c.community AND n.target = c.target
       WHERE n.invited_to IS NOT NULL AND NOT n.withdrawn AND n.ordinal < c.ordinal
       ORDER BY n.id
       FOR UPDATE OF n)
     UPDATE notification n SET withdrawn = true FROM open WHERE n.id = open.id
     RETURNING n.id, n.audience, open.event_id, n.target, n.category, n.interactive, n.content, n.created_at,
               n.read, n.acknowledged, n.withdrawn`,
    [
      cancelled.map(({ audience }) => audience),
      cancelled.map(({ community }) => community),
      cancelled.map(({ target }) => target),
      cancelled.map((invitation) => String(invitation.cancelled)),
      cancelled.map(({ cancel }) => cancel),
    ],
  );
  for (const { audience, target, read, acknowledged } of rows) {
    inboxes.change(audience, target, read || acknowledged ? 0 : -1);
  }
  return rows;
}

/** A notification that a cancel has withdrawn; `event_id` is the cancel's. */
interface WithdrawnRow extends StoredRow {
  readonly read: boolean;
  readonly acknowledged: boolean;
  readonly withdrawn: boolean;
}

/** Keeps what is to be told of withdrawals until it was: told again after a crash, it has to be the same. */
async function recordWithdrawals(
  tx: EntityManager,
  rows: readonly WithdrawnRow[],
  counts: ReadonlyMap<string, InboxCounts>,
): Promise<void> {
  if (rows.length === 0) return;
  const messages = rows.map((row): InboxUpdate => {
    const { version, unreadCount } = counts.get(keyOf(row.audience, row.target))!;
    const notification = userNotification({ ...row, createdAt: row.created_at });
    return { target: row.target, notification, unread_count: unreadCount, version };
  });
  await tx.query(
    `INSERT INTO withdrawal (id, audience, event_id, notification_id, message)
     SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::json[])`,
    [
      rows.map(() => uuidv7()),
      rows.map(({ audience }) => audience),
      rows.map(({ event_id }) => event_id),
      rows.map(({ id }) => id),
      messages.map((message) => JSON.stringify(message)),
    ],
  );
}

/**
 * The withdrawals of the batch's cancels, also those of earlier deliveries. Where the invite itself was not
 * told yet, it is told first: the other way round a client would show it as open.
 */
async function findWithdrawals(
  tx: EntityManager,
  batch: readonly Work[],
  stored: readonly Stored[],
): Promise<void> {
  const cancels = batch.flatMap((work, event) =>
    work.wanted.invitation?.kind === 'cancelled' ? [{ ...work, event }] : [],
  );
  if (cancels.length === 0) return;
  const rows: { id: string; audience: string; event_id: string; message: InboxUpdate; told: boolean }[] =
    await tx.query(
      `SELECT w.id, w.audience, w.event_id, w.message, n.emitted_at IS NOT NULL AS told
       FROM withdrawal w JOIN notification n ON n.id = w.notification_id
       WHERE (w.audience, w.event_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
       ORDER BY w.id`,
      [cancels.map(({ audience }) => audience), cancels.map(({ eventId }) => eventId)],
    );
  const byEvent = groupBy(rows, (row) => keyOf(row.audience, row.event_id));
  for (const { audience, eventId, event } of cancels) {
    for (const { id, message, told } of byEvent.get(keyOf(audience, eventId)) ?? []) {
      const { created, withdrawn } = stored[event]!;
      const { notification } = message;
      if (notification && !told) {
        const asCreated = { ...notification, read: false, acknowledged: false, withdrawn: false };
        created.push({ id: notification.id, audience, message: asCreated });
      }
      withdrawn.push({ id, audience, message });
    }
  }
}

interface InboxCounts {
  readonly version: number;
  readonly unreadCount: number;
}

/** The changes of a transaction to inboxes, added up: each inbox is written once. */
class Inboxes {
  readonly #changes = new Map<string, { audience: string; user: string; unread: number }>();

  change(audience: string, user: string, unread: number): void {
    const key = keyOf(audience, user);
    const change = this.#changes.get(key);
    if (change) change.unread += unread;
    else this.#changes.set(key, { audience, user, unread });
  }

  async update(tx: EntityManager): Promise<ReadonlyMap<string, InboxCounts>> {
    const changes = [...this.#changes.values()];
    if (changes.length === 0) return new Map();
    const rows: { audience: string; user_id: string; version: string; unread_count: number }[] =
      await tx.query(
        `INSERT INTO inbox AS i (audience, user_id, version, unread_count)
         SELECT c.audience, c.user_id, 1, c.unread
         FROM unnest($1::text[], $2::text[], $3::int[]) AS c (audience, user_id, unread)
         ORDER BY 1, 2
         ON CONFLICT (audience, user_id) DO UPDATE
           SET version = i.version + 1, unread_count = i.unread_count + excluded.unread_count
         RETURNING audience, user_id, version, unread_count`,
        [
          changes.map(({ audience }) => audience),
          changes.map(({ user }) => user),
          changes.map(({ unread }) => unread),
        ],
      );
    return new Map(
      rows.map((row) => [
        keyOf(row.audience, row.user_id),
        { version: Number(row.version), unreadCount: row.unread_count },
      ]),
    );
  }
}

/** A map's key for several texts, whatever they hold. */
function keyOf(...parts: readonly string[]): string {
  return JSON.stringify(parts);
}

function groupBy<T>(rows: readonly T[], key: (row: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(key(row));
    if (group) group.push(row);
    else groups.set(key(row), [row]);
  }
  return groups;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
