import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import { compare } from '../keys.js';
import type { Activity } from './activity.js';

/** How many entries one INSERT takes: it has to end within the time that a statement has. */
const ROWS = 2_000;

/** An activity with the event that it comes from. */
export interface Happening extends Activity {
  readonly audience: string;
  /** At most 255 characters. */
  readonly eventId: string;
  /** When the event was stored, in nanoseconds since 1970: grows along the stream. */
  readonly ordinal: bigint;
}

/** A batch of activities in PostgreSQL: one transaction, and an event that was stored before changes nothing. */
export class TimelineStore {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /** Stores all or nothing; the answer is how many entries were not there before. */
  apply(batch: readonly Happening[]): Promise<number> {
    return withTransaction(this.#source, async (tx) => {
      // Sorted by the unique key: two replicas with the same events wait for each other in one order.
      const rows = batch.map((happening) => ({ ...happening, id: uuidv7() }));
      rows.sort(
        (a, b) =>
          compare(a.audience, b.audience) ||
          compare(a.eventId, b.eventId) ||
          (a.ordinal < b.ordinal ? -1 : 1),
      );
      const inserted: { id: string }[] = await tx.query(
        `INSERT INTO activity (id, audience, event_id, ordinal, size, content)
         SELECT a.id, a.audience, a.event_id, a.ordinal, octet_length(a.content), a.content::json
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[]) WITH ORDINALITY
           AS a (id, audience, event_id, ordinal, content, place)
         ORDER BY a.place
         ON CONFLICT (audience, event_id) DO NOTHING
         RETURNING id`,
        [
          rows.map(({ id }) => id),
          rows.map(({ audience }) => audience),
          rows.map(({ eventId }) => eventId),
          rows.map(({ ordinal }) => String(ordinal)),
          rows.map(({ content }) => content),
        ],
      );
      const ids = new Set(inserted.map(({ id }) => id));
      const entries = rows
        .filter(({ id }) => ids.has(id))
        .flatMap(({ id, targets }) => targets.map((target) => ({ id, target })));
      for (let start = 0; start < entries.length; start += ROWS) {
        await insertEntries(tx, entries.slice(start, start + ROWS));
      }
      return entries.length;
    });
  }
}

async function insertEntries(
  tx: EntityManager,
  entries: readonly { readonly id: string; readonly target: string }[],
): Promise<void> {
  await tx.query(
    `INSERT INTO timeline_entry (activity_id, target, audience, ordinal)
     SELECT a.id, e.target, a.audience, a.ordinal
     FROM unnest($1::uuid[], $2::text[]) AS e (id, target) JOIN activity a ON a.id = e.id`,
    [entries.map(({ id }) => id), entries.map(({ target }) => target)],
  );
}
