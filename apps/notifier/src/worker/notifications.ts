/** The notifications of a batch: who gets which, what is new, and what was stored before but not told. */
import type { EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { ManagersUnknown } from '../failure.js';
import { type NotificationRow, type StoredContent, userNotification } from '../inbox/entities.js';
import type { InboxChanges } from '../inbox/inbox-changes.js';
import { compare, groupBy, keyOf } from '../keys.js';
import type { Invitation } from './invitations.js';
import type { Content, ManagersOf } from './notice.js';
import type { Created, Stored, Work } from './work.js';

/** How many recipients one INSERT takes: it has to end within the time that a statement has. */
const ROWS = 2_000;

/** The part of a content that is stored as JSON; the rest has columns. */
export function contentJson({ category, interactive, ...content }: Content): string {
  return JSON.stringify(content satisfies StoredContent);
}

/** A notification that is to be there after the batch. */
export interface Candidate extends NotificationRow {
  readonly audience: string;
  /** The index of its event in the batch. */
  readonly event: number;
}

/** The notifications that the events want, sorted by the unique key; events without known managers fail. */
export async function candidatesOf(
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
export async function insertNotifications(
  tx: EntityManager,
  batch: readonly Work[],
  candidates: readonly Candidate[],
  stored: readonly Stored[],
  inboxes: InboxChanges,
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
      inboxes.created(row.audience, row.target);
      outcome.created.push(createdOf(row));
    }
  }
}

/**
 * What an earlier delivery stored and did not come to tell: of events delivered before, and of those whose id
 * another event has had.
 */
export async function findUnannounced(
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

export interface StoredRow extends Omit<NotificationRow, 'createdAt'> {
  readonly audience: string;
  readonly event_id: string;
  readonly created_at: Date;
}

function createdOf(row: NotificationRow & { readonly audience: string }): Created {
  return { id: row.id, audience: row.audience, message: userNotification({ ...row, withdrawn: false }) };
}
