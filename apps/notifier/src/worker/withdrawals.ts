/** Invites that are taken back. */
import type { EntityManager } from 'typeorm';
import { userNotification } from '../inbox/entities.js';
import type { InboxChanges } from '../inbox/inbox-changes.js';
import type { Invitation } from './invitations.js';
import type { StoredRow } from './notifications.js';

/** Withdraws the invites that stand before a cancel of the batch, and counts them out. */
export async function withdrawInvites(
  tx: EntityManager,
  invitations: ReadonlyMap<string, Invitation>,
  inboxes: InboxChanges,
): Promise<void> {
  const cancelled = [...invitations.values()].filter(({ cancel }) => cancel !== '');
  if (cancelled.length === 0) return;
  const [rows]: [WithdrawnRow[], number] = await tx.query(
    `WITH open AS (
       SELECT n.id, c.traceparent
       FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
         AS c (audience, community, target, ordinal, traceparent)
       JOIN notification n ON n.audience = c.audience AND n.invited_to = c.community AND n.target = c.target
       WHERE n.invited_to IS NOT NULL AND NOT n.withdrawn AND n.ordinal < c.ordinal
       ORDER BY n.id
       FOR UPDATE OF n)
     UPDATE notification n SET withdrawn = true FROM open WHERE n.id = open.id
     RETURNING n.id, n.audience, n.event_id, n.target, n.category, n.interactive, n.content, n.created_at,
               n.read, n.acknowledged, n.withdrawn, n.emitted_at IS NOT NULL AS told, open.traceparent`,
    [
      cancelled.map(({ audience }) => audience),
      cancelled.map(({ community }) => community),
      cancelled.map(({ target }) => target),
      cancelled.map((invitation) => String(invitation.cancelled)),
      cancelled.map(({ traceparent }) => traceparent ?? null),
    ],
  );
  for (const row of rows) {
    inboxes.updated({
      audience: row.audience,
      user: row.target,
      change: 'withdrawn',
      unread: row.read || row.acknowledged ? 0 : -1,
      notification: userNotification({ ...row, createdAt: row.created_at }),
      untold: row.told ? [] : [row.id],
      traceparent: row.traceparent ?? undefined,
    });
  }
}

interface WithdrawnRow extends StoredRow {
  readonly read: boolean;
  readonly acknowledged: boolean;
  readonly withdrawn: boolean;
  /** Whether its recipient was told of it as new. */
  readonly told: boolean;
  /** The cancel's. */
  readonly traceparent: string | null;
}
