/** Invites that are taken back, and what their recipients are told of it. */
import type { InboxUpdate } from '@posthorn/contracts';
import type { EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { userNotification } from '../inbox/entities.js';
import type { InboxChanges, InboxCounts } from '../inbox/inbox-changes.js';
import { groupBy, keyOf } from '../keys.js';
import type { Invitation } from './invitations.js';
import type { StoredRow } from './notifications.js';
import type { Stored, Work } from './work.js';

/** Withdraws the invites that stand before a cancel of the batch. */
export async function withdrawInvites(
  tx: EntityManager,
  invitations: ReadonlyMap<string, Invitation>,
  inboxes: InboxChanges,
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
export async function recordWithdrawals(
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
export async function findWithdrawals(
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
