/**
 * Joins and leaves lock the members that they are about, in order. A list that is set as a whole locks those
 * that are not in it before those that are: side by side, the two would end in deadlocks.
 */
import type { EntityManager } from 'typeorm';
import { keyOf } from '../keys.js';

interface CommunityKey {
  readonly audience: string;
  readonly community: string;
}

/** Waits for lists that are being set, and keeps others from being set, until the transaction ends. */
export async function keepMemberLists(
  tx: EntityManager,
  communities: readonly CommunityKey[],
): Promise<void> {
  await tx.query(
    `SELECT pg_advisory_xact_lock_shared(key)
     FROM (SELECT DISTINCT hashtextextended(name, 0) AS key FROM unnest($1::text[]) AS name ORDER BY key) AS keys`,
    [communities.map(nameOf)],
  );
}

/** Waits for joins and leaves of the community, and keeps others waiting, until the transaction ends. */
export async function replaceMemberList(tx: EntityManager, community: CommunityKey): Promise<void> {
  await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [nameOf(community)]);
}

function nameOf({ audience, community }: CommunityKey): string {
  return `posthorn.notifier.members ${keyOf(audience, community)}`;
}
