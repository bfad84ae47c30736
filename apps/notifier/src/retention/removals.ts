/**
 * What grows old, and how it is removed: each function takes one batch within a transaction, oldest first, and
 * leaves out what another transaction has locked, so that it waits for nobody; the next run finds it.
 */
import type { EntityManager } from 'typeorm';
import { InboxChanges, type RecordedUpdate } from '../inbox/inbox-changes.js';
import { groupBy, keyOf } from '../keys.js';
import type { RemovedKind } from '../metrics.js';

/** What a batch has removed. */
export interface Removal {
  readonly removed: Partial<Record<RemovedKind, number>>;
  /** To be told after the commit. */
  readonly updates: readonly RecordedUpdate[];
  /** Whether there may be more to remove. */
  readonly more: boolean;
}

/**
 * Removes old rows.
 * @param before of what was stored before this place, in nanoseconds since 1970
 * @param limit rows at most
 */
export type Remove = (tx: EntityManager, before: bigint, limit: number) => Promise<Removal>;

interface RemovedNotification {
  readonly id: string;
  readonly audience: string;
  readonly target: string;
  readonly read: boolean;
  readonly acknowledged: boolean;
  readonly withdrawn: boolean;
}

/** Notifications. Users are told of those that their inboxes still listed. */
export const removeNotifications: Remove = async (tx, before, limit) => {
  // Locked first, deleted by a second statement, which sees them as they are now: what was read meanwhile does
  // not count as unread.
  const old: { id: string }[] = await tx.query(
    `SELECT n.id FROM notification n WHERE n.ordinal < $1 ORDER BY n.ordinal LIMIT $2 FOR UPDATE SKIP LOCKED`,
    [String(before), limit],
  );
  const [gone]: [RemovedNotification[], number] = await tx.query(
    `DELETE FROM notification n WHERE n.id = ANY ($1::uuid[])
     RETURNING n.id, n.audience, n.target, n.read, n.acknowledged, n.withdrawn`,
    [old.map(({ id }) => id)],
  );
  const listed = gone.filter(({ acknowledged, withdrawn }) => !acknowledged && !withdrawn);
  const inboxes = new InboxChanges();
  for (const rows of groupBy(listed, ({ audience, target }) => keyOf(audience, target)).values()) {
    const { audience, target } = rows[0]!;
    inboxes.updated({
      audience,
      user: target,
      change: 'removed',
      unread: -rows.filter(({ read }) => !read).length,
      ids: rows.map(({ id }) => id),
    });
  }
  const { updates } = await inboxes.record(tx);
  return { removed: { notifications: gone.length }, updates, more: old.length === limit };
};

/** Activities with their entries; one that stands on many timelines goes in several batches. */
export const removeActivities: Remove = async (tx, before, limit) => {
  const old: { id: string }[] = await tx.query(
    `SELECT a.id FROM activity a WHERE a.ordinal < $1 ORDER BY a.ordinal LIMIT $2 FOR UPDATE SKIP LOCKED`,
    [String(before), limit],
  );
  const ids = old.map(({ id }) => id);
  const [, entries]: [unknown, number] = await tx.query(
    `DELETE FROM timeline_entry e
     WHERE (e.activity_id, e.target) IN (
       SELECT activity_id, target FROM timeline_entry WHERE activity_id = ANY ($1::uuid[]) LIMIT $2)`,
    [ids, limit],
  );
  const [, activities]: [unknown, number] = await tx.query(
    `DELETE FROM activity a
     WHERE a.id = ANY ($1::uuid[]) AND NOT EXISTS (SELECT FROM timeline_entry e WHERE e.activity_id = a.id)`,
    [ids],
  );
  const more = old.length === limit || activities < old.length;
  return { removed: { entries, activities }, updates: [], more };
};

/** How far users have seen timelines, where nothing is left that they have seen. */
export const removeSeen = removeRows('seen', 'timeline_seen', 'audience, user_id, target', 'ordinal < $1');

/**
 * Invitations that were last cancelled so long ago that an invite from before is not written any more, and those
 * that never were: their row is only there to be locked.
 */
export const removeInvitations = removeRows(
  'invitations',
  'invitation',
  'audience, community, target',
  'cancelled < $1',
  'cancelled',
);

/** Who has left a community, once no join from before can come any more that would count. */
export const removeDepartures = removeRows(
  'departures',
  'community_member',
  'audience, community, user_id',
  'NOT present AND ordinal < $1',
);

function removeRows(
  kind: RemovedKind,
  table: string,
  key: string,
  condition: string,
  order = 'ordinal',
): Remove {
  const sql = `DELETE FROM ${table} WHERE (${key}) IN (
    SELECT ${key} FROM ${table} WHERE ${condition} ORDER BY ${order} LIMIT $2 FOR UPDATE SKIP LOCKED)`;
  return async (tx, before, limit) => {
    const [, count]: [unknown, number] = await tx.query(sql, [String(before), limit]);
    return { removed: { [kind]: count }, updates: [], more: count === limit };
  };
}
