/** The table of dead letters, as the projection and the redriver change it. */
import type { DeadLetter, Redrivable } from '@posthorn/bus/platform';
import { parseStoredSubject } from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';

/** A dead letter as it becomes a row. */
export interface ProjectedLetter {
  readonly letter: DeadLetter;
  /** The topic's name as it is shown. */
  readonly topic: string;
  readonly reason: string;
  /** When `PH_DEAD` stored it, in nanoseconds since 1970. */
  readonly diedAt: bigint;
  /** The community whose managers it waits for. */
  readonly waitsFor: string | undefined;
}

/** Which letters of an audience are meant. */
export interface Selection {
  readonly audience: string;
  readonly consumer?: string | undefined;
  readonly code?: string | undefined;
}

/** Letters that one statement marks: it has to end within the time that a statement has. */
const MARKED = 5_000;
/** Letters that are redriven in one transaction: each may be larger than 1 MiB. */
const REDRIVEN = 50;
/** Rows that one statement removes. */
const PURGED = 1_000;

/** The pause before a letter that was woken and came back is woken again, in seconds; then twice as long. */
const WAKE_PAUSE = 30;

/** After which no message of `PH_DEAD` can bring a letter back, in seconds: a day more than it keeps them. */
const KEPT = 31 * 24 * 3600;

const NOW = `(extract(epoch FROM now()) * 1000000000)::bigint`;

/** What a letter leaves behind, so that its message does not bring it back when it is delivered again. */
const EMPTIED = `headers = NULL, payload = NULL, waits_for = NULL, reason = ''`;

export class LetterStore {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /** Writes letters; what is known of a letter yields only to a later failure of its event. */
  async insert(letters: readonly ProjectedLetter[]): Promise<void> {
    const rows = letters.map(({ letter, topic, reason, diedAt, waitsFor }, i) => ({
      n: i + 1,
      id: letter.id,
      audience: letter.source.audience,
      consumer: letter.consumer,
      code: storable(letter.code),
      reason: storable(reason),
      tries: letter.tries,
      redrives: letter.redrives,
      subject: letter.subject,
      topic: storable(topic),
      event_id: letter.eventId,
      stream: letter.stream,
      epoch: letter.epoch,
      sequence: letter.sequence,
      stored_at: String(letter.storedAt),
      died_at: String(diedAt),
      waits_for: waitsFor === undefined ? null : storable(waitsFor),
      // As text: PostgreSQL refuses \u0000 in what it takes out of JSON, and not in json that it keeps.
      headers: JSON.stringify(letter.headers),
    }));
    const columns =
      'id, audience, consumer, code, reason, tries, redrives, subject, topic, event_id, stream, epoch, sequence, ' +
      'stored_at, died_at, waits_for';
    // A letter may stand twice in a batch, and one statement touches a row once. In the order of ids, so that
    // two replicas do not wait for each other.
    await this.#source.query(
      `INSERT INTO dead_letter AS l (${columns}, headers, payload, state)
       SELECT DISTINCT ON (id) ${columns}, headers::json, payload, 'waiting'
       FROM json_to_recordset($1::json) AS r (n bigint, id uuid, audience text, consumer text, code text,
         reason text, tries bigint, redrives bigint, subject text, topic text, event_id text, stream text,
         epoch text, sequence bigint, stored_at bigint, died_at bigint, waits_for text, headers text)
       JOIN unnest($2::bytea[]) WITH ORDINALITY AS p (payload, n) USING (n)
       ORDER BY id, redrives DESC
       ON CONFLICT (id) DO UPDATE SET code = excluded.code, reason = excluded.reason, tries = excluded.tries,
         redrives = excluded.redrives, died_at = excluded.died_at, waits_for = excluded.waits_for,
         headers = excluded.headers, payload = excluded.payload, state = excluded.state
         WHERE l.redrives < excluded.redrives`,
      [JSON.stringify(rows), letters.map(({ letter }) => Buffer.from(letter.payload))],
    );
  }

  /**
   * Marks for redriving what waits for the managers of a community that has some now; returns how many.
   * Managers are set before or after the letter is written: whoever is second finds both.
   */
  async wake(): Promise<number> {
    return this.#count(
      `WITH marked AS (
         UPDATE dead_letter SET state = 'redriving', woken = woken + 1
         WHERE id IN (
           SELECT l.id
           FROM dead_letter l JOIN community c ON c.audience = l.audience AND c.id = l.waits_for
           WHERE l.state = 'waiting' AND l.waits_for IS NOT NULL AND c.managers IS NOT NULL
             AND (l.woken = 0 OR l.died_at < ${NOW} - ($2::bigint << LEAST(l.woken - 1, 12)))
           ORDER BY l.id LIMIT $1 FOR UPDATE OF l SKIP LOCKED)
         RETURNING 1)
       SELECT count(*)::int AS count FROM marked`,
      [MARKED, WAKE_PAUSE * 1e9],
    );
  }

  /** Marks for redriving one letter that waits; whether there was one. */
  async mark(audience: string, id: string): Promise<boolean> {
    const count = await this.#count(
      `WITH marked AS (
         UPDATE dead_letter SET state = 'redriving'
         WHERE id = $1 AND audience = $2 AND state = 'waiting' RETURNING 1)
       SELECT count(*)::int AS count FROM marked`,
      [id, audience],
    );
    return count > 0;
  }

  /** Marks for redriving all letters that wait now; returns how many. Some may be marked where it rejects. */
  async markAll({ audience, consumer = null, code = null }: OrNull<Selection>): Promise<number> {
    // What comes back meanwhile died later.
    const [{ last }]: [{ last: string | null }] = await this.#source.query(
      `SELECT max(died_at) AS last FROM dead_letter WHERE audience = $1 AND state = 'waiting'`,
      [audience],
    );
    let marked = 0;
    for (;;) {
      const count = await this.#count(
        `WITH marked AS (
           UPDATE dead_letter SET state = 'redriving'
           WHERE id IN (
             SELECT id FROM dead_letter
             WHERE audience = $1 AND state = 'waiting' AND died_at <= $2
               AND ($3::text IS NULL OR consumer = $3) AND ($4::text IS NULL OR code = $4)
             ORDER BY died_at, id LIMIT $5 FOR UPDATE SKIP LOCKED)
           RETURNING 1)
         SELECT count(*)::int AS count FROM marked`,
        [audience, last, consumer, code, MARKED],
      );
      marked += count;
      if (count < MARKED) return marked;
    }
  }

  /** Deletes a letter that waits; whether there was one. */
  async delete(audience: string, id: string): Promise<boolean> {
    const count = await this.#count(
      `WITH deleted AS (
         UPDATE dead_letter SET state = 'deleted', ${EMPTIED}
         WHERE id = $1 AND audience = $2 AND state = 'waiting' RETURNING 1)
       SELECT count(*)::int AS count FROM deleted`,
      [id, audience],
    );
    return count > 0;
  }

  /** The next audience, in the order of names, of which letters are marked. */
  async markedAudience(after: string | undefined): Promise<string | undefined> {
    const [row]: { audience: string }[] = await this.#source.query(
      `SELECT audience FROM dead_letter WHERE state = 'redriving' AND ($1::text IS NULL OR audience > $1)
       ORDER BY audience LIMIT 1`,
      [after],
    );
    return row?.audience;
  }

  /**
   * Redrives some of an audience's letters that are marked; returns how many. Where the process dies in between
   * they stay marked, and `publish` is called for them again.
   * @throws the first failure of `publish`; the other letters are redriven
   */
  async redriveSome(audience: string, publish: (letter: Redrivable) => Promise<void>): Promise<number> {
    const results = await withTransaction(this.#source, async (tx) => {
      const letters = await marked(tx, audience);
      const results = await Promise.allSettled(letters.map(publish));
      const done = letters.filter((_, i) => results[i]!.status === 'fulfilled').map(({ id }) => id);
      if (done.length > 0) {
        await tx.query(`UPDATE dead_letter SET state = 'redriven', ${EMPTIED} WHERE id = ANY ($1::uuid[])`, [
          done,
        ]);
      }
      return results;
    });
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
    return results.length;
  }

  /** Letters that wait, of all audiences. */
  waiting(): Promise<number> {
    return this.#count(`SELECT count(*)::int AS count FROM dead_letter WHERE state = 'waiting'`, []);
  }

  /** Removes some rows of letters that `PH_DEAD` has dropped long since. */
  async purgeSome(): Promise<void> {
    await this.#source.query(
      `DELETE FROM dead_letter WHERE id IN (
         SELECT id FROM dead_letter WHERE died_at < ${NOW} - $1::bigint
         ORDER BY died_at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
      [KEPT * 1e9, PURGED],
    );
  }

  async #count(sql: string, values: unknown[]): Promise<number> {
    const [{ count }]: [{ count: number }] = await this.#source.query(sql, values);
    return count;
  }
}

/** Text as PostgreSQL stores it: a letter is listed whatever its event holds. */
function storable(text: string): string {
  return text.replaceAll('\0', '\u{fffd}').toWellFormed();
}

type OrNull<T> = { readonly [K in keyof T]: T[K] | null };

async function marked(tx: EntityManager, audience: string): Promise<Redrivable[]> {
  const rows: MarkedRow[] = await tx.query(
    `SELECT id, consumer, subject, stream, epoch, sequence, stored_at, redrives, headers, payload
     FROM dead_letter WHERE audience = $1 AND state = 'redriving'
     ORDER BY died_at, id LIMIT $2 FOR UPDATE SKIP LOCKED`,
    [audience, REDRIVEN],
  );
  return rows.map(({ stored_at, sequence, redrives, ...row }) => ({
    ...row,
    source: parseStoredSubject(row.subject)!,
    sequence: Number(sequence),
    redrives: Number(redrives),
    storedAt: BigInt(stored_at),
  }));
}

/** As PostgreSQL gives it: whole numbers of eight bytes as text. */
interface MarkedRow
  extends Pick<Redrivable, 'id' | 'consumer' | 'subject' | 'stream' | 'epoch' | 'headers' | 'payload'> {
  readonly sequence: string;
  readonly stored_at: string;
  readonly redrives: string;
}
