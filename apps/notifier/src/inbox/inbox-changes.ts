import type { EntityManager } from 'typeorm';
import { keyOf } from '../keys.js';

/** How an inbox stands. */
export interface InboxCounts {
  readonly version: number;
  readonly unreadCount: number;
}

/** The changes of a transaction to inboxes, added up: each inbox is written once. */
export class InboxChanges {
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
