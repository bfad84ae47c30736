import type { EntityManager } from 'typeorm';
import { keepMemberLists } from '../communities/member-lists.js';
import type { Work } from './work.js';

/** Applies joins and leaves, each only where it is the newest word on that member. */
export async function followMembers(tx: EntityManager, batch: readonly Work[]): Promise<void> {
  const changes = batch.flatMap(({ audience, ordinal, wanted: { membership } }) =>
    membership ? [{ audience, ordinal, ...membership }] : [],
  );
  if (changes.length === 0) return;
  await keepMemberLists(tx, changes);
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
