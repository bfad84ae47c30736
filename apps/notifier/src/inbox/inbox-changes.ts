import type { InboxUpdate, UserNotification } from '@posthorn/contracts';
import type { EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { keyOf } from '../keys.js';

/** How an inbox stands. */
export interface InboxCounts {
  readonly version: number;
  readonly unreadCount: number;
}

/** A change of an inbox, of which its user is told by one `usernotification:updated`. */
export interface InboxChange {
  readonly audience: string;
  /** Whose inbox. */
  readonly user: string;
  readonly change: NonNullable<InboxUpdate['change']>;
  /** What it adds to `unread_count`. */
  readonly unread: number;
  /** The one that changed, as it is now. */
  readonly notification?: UserNotification;
  /** Those that changed, where it is not one by its name; few enough for one event: 1,000. */
  readonly ids?: readonly string[];
  /** Those of them that have no `emitted_at`: the update waits until their `usernotification:created` was told. */
  readonly untold?: readonly string[];
  /** W3C trace context of what caused it. */
  readonly traceparent?: string | undefined;
}

/** A recorded change: in the database, and to be told once its transaction is committed. */
export interface RecordedUpdate {
  /** The id of the event that tells it. */
  readonly id: string;
  readonly audience: string;
  readonly message: InboxUpdate;
  readonly untold: readonly string[];
  readonly traceparent: string | null;
}

/** What a transaction has recorded. */
export interface Recorded {
  /** The inboxes that changed, by `keyOf(audience, user)`. */
  readonly counts: ReadonlyMap<string, InboxCounts>;
  /** For {@link InboxUpdates.announce}, after the commit. */
  readonly updates: readonly RecordedUpdate[];
}

/** One inbox within a transaction. */
interface Ledger {
  readonly audience: string;
  readonly user: string;
  created: number;
  readonly updates: InboxChange[];
}

/**
 * What a transaction changes in inboxes. It gathers, and `record()` writes all of it at the end: each inbox once
 * (which locks it until the commit, after the notifications themselves), and each update for `InboxUpdates`
 * (inbox-updates.ts) to tell.
 *
 * An inbox's version grows by one for each event that its user gets: each created notification, then each update.
 *
 *     const recorded = await withTransaction(source, async (tx) => {
 *       const inboxes = new InboxChanges();
 *       inboxes.updated({ audience, user, change: 'removed', unread: -2, ids });
 *       return inboxes.record(tx);
 *     });
 *     await updates.announce(recorded.updates);
 */
export class InboxChanges {
  readonly #ledgers = new Map<string, Ledger>();

  /** A notification that is new and unread, of which `usernotification:created` will tell. */
  created(audience: string, user: string): void {
    this.#ledger(audience, user).created += 1;
  }

  /** A change of what was there. */
  updated(change: InboxChange): void {
    this.#ledger(change.audience, change.user).updates.push(change);
  }

  async record(tx: EntityManager): Promise<Recorded> {
    const counts = await this.#count(tx);
    const updates = [...this.#ledgers].flatMap(([key, ledger]) => recordedUpdates(ledger, counts.get(key)!));
    if (updates.length > 0) await insertUpdates(tx, updates);
    return { counts, updates };
  }

  #ledger(audience: string, user: string): Ledger {
    const key = keyOf(audience, user);
    let ledger = this.#ledgers.get(key);
    if (!ledger) {
      ledger = { audience, user, created: 0, updates: [] };
      this.#ledgers.set(key, ledger);
    }
    return ledger;
  }

  async #count(tx: EntityManager): Promise<ReadonlyMap<string, InboxCounts>> {
    const ledgers = [...this.#ledgers.values()];
    if (ledgers.length === 0) return new Map();
    const rows: { audience: string; user_id: string; version: string; unread_count: number }[] =
      await tx.query(
        `INSERT INTO inbox AS i (audience, user_id, version, unread_count)
         SELECT c.audience, c.user_id, c.events, c.unread
         FROM unnest($1::text[], $2::text[], $3::int[], $4::int[]) AS c (audience, user_id, events, unread)
         ORDER BY 1, 2
         ON CONFLICT (audience, user_id) DO UPDATE
           SET version = i.version + excluded.version, unread_count = i.unread_count + excluded.unread_count
         RETURNING audience, user_id, version, unread_count`,
        [
          ledgers.map(({ audience }) => audience),
          ledgers.map(({ user }) => user),
          ledgers.map(({ created, updates }) => created + updates.length),
          ledgers.map(({ created, updates }) => updates.reduce((sum, { unread }) => sum + unread, created)),
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

/** The updates of one inbox, each with version and count as they are right after it. */
function recordedUpdates({ audience, user, updates }: Ledger, end: InboxCounts): RecordedUpdate[] {
  let version = end.version - updates.length;
  let unreadCount = updates.reduce((sum, { unread }) => sum - unread, end.unreadCount);
  return updates.map(({ change, unread, notification, ids, untold = [], traceparent = null }) => {
    version += 1;
    unreadCount += unread;
    const message: InboxUpdate = {
      target: user,
      change,
      ...(notification ? { notification } : {}),
      ...(ids ? { ids: [...ids] } : {}),
      unread_count: unreadCount,
      version,
    };
    return { id: uuidv7(), audience, message, untold, traceparent };
  });
}

async function insertUpdates(tx: EntityManager, updates: readonly RecordedUpdate[]): Promise<void> {
  await tx.query(
    `INSERT INTO inbox_update (id, audience, user_id, version, message, untold, traceparent)
     SELECT u.id, u.audience, u.user_id, u.version, u.message, u.untold::uuid[], u.traceparent
     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::json[], $6::text[], $7::text[])
       AS u (id, audience, user_id, version, message, untold, traceparent)`,
    [
      updates.map(({ id }) => id),
      updates.map(({ audience }) => audience),
      updates.map(({ message }) => message.target),
      updates.map(({ message }) => message.version),
      updates.map(({ message }) => JSON.stringify(message)),
      updates.map(({ untold }) => `{${untold.join()}}`),
      updates.map(({ traceparent }) => traceparent),
    ],
  );
}
