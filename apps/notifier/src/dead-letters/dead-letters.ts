import {
  type DeadLetterItem,
  type DeadLetterPage,
  type DeadLetterRequest,
  type DeadLetterView,
  exceedsDepth,
  formatPosition,
  HEADER,
  type ListDeadLettersRequest,
  ProblemError,
  parseStoredSubject,
  type RedriveReply,
  type RedriveRequest,
} from '@posthorn/contracts';
import type { DataSource } from 'typeorm';
import type { LetterStore } from './letter-store.js';

export interface DeadLettersOptions {
  readonly source: DataSource;
  readonly store: LetterStore;
  /** Told when letters were marked for redriving. */
  readonly marked: () => void;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Headers that are shown. All others came from a publisher who may have thought that nobody reads them. */
const SHOWN: ReadonlySet<string> = new Set([
  HEADER.specVersion,
  HEADER.id,
  HEADER.source,
  HEADER.type,
  HEADER.time,
  HEADER.topic,
  HEADER.kind,
  HEADER.traceparent,
]);

/** The largest payload that is shown as JSON, in bytes: with what is around it, it has to pass over NATS. */
const PAYLOAD_BYTES = 1.5 * 1024 * 1024;

/** The longest source that is listed, in characters: a foreign publisher's may fill a page beyond one answer. */
const SOURCE_LIMIT = 255;

const COLUMNS = `id, consumer, code, reason, tries, redrives, subject, topic, event_id, epoch, sequence, stored_at,
  died_at, headers`;

/** The dead letters of an audience: those that wait for somebody to redrive or delete them. */
export class DeadLetters {
  readonly #options: DeadLettersOptions;

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /**
   * A page, those first that were given up first.
   * @throws ProblemError `request_invalid` for a cursor that is none
   */
  async list(request: ListDeadLettersRequest): Promise<DeadLetterPage> {
    const { audience, consumer, code, limit, cursor } = request;
    const place = cursor === undefined ? undefined : parseCursor(cursor);
    const rows: Row[] = await this.#options.source.query(
      `SELECT ${COLUMNS} FROM dead_letter
       WHERE audience = $1 AND state = 'waiting'
         AND ($2::text IS NULL OR consumer = $2) AND ($3::text IS NULL OR code = $3)
         AND ($4::bigint IS NULL OR (died_at, id) > ($4, $5::uuid))
       ORDER BY died_at, id LIMIT $6`,
      [audience, consumer, code, place?.diedAt, place?.id, limit + 1],
    );
    const last = rows.length > limit ? rows[limit - 1] : undefined;
    return { items: rows.slice(0, limit).map(itemOf), next_cursor: last ? formatCursor(last) : null };
  }

  /** @throws ProblemError `dead_letter_not_found` */
  async show({ audience, id }: DeadLetterRequest): Promise<DeadLetterView> {
    const [row]: (Row & { payload: Buffer })[] = UUID.test(id)
      ? await this.#options.source.query(
          `SELECT ${COLUMNS}, payload FROM dead_letter WHERE id = $1 AND audience = $2 AND state = 'waiting'`,
          [id, audience],
        )
      : [];
    if (!row) throw notFound();
    const { event, ...item } = itemOf(row);
    const headers = Object.fromEntries(row.headers.filter(([name]) => SHOWN.has(name)));
    return { ...item, event: { ...event, headers, ...payloadOf(row.payload) } };
  }

  /**
   * Redrives one; one that is being redriven already is left to that.
   * @throws ProblemError `dead_letter_not_found`
   */
  async redrive({ audience, id }: DeadLetterRequest): Promise<RedriveReply> {
    const { source, store, marked } = this.#options;
    if (!UUID.test(id)) throw notFound();
    if (await store.mark(audience, id)) {
      marked();
      return { redriving: 1 };
    }
    const known: unknown[] = await source.query(
      `SELECT 1 FROM dead_letter WHERE id = $1 AND audience = $2 AND state IN ('redriving', 'redriven')`,
      [id, audience],
    );
    if (known.length === 0) throw notFound();
    return { redriving: 0 };
  }

  /** Redrives all that wait now, or those of them that are asked for. */
  async redriveAll(request: RedriveRequest): Promise<RedriveReply> {
    const { store, marked } = this.#options;
    try {
      return { redriving: await store.markAll(request) };
    } finally {
      marked();
    }
  }

  /** @throws ProblemError `dead_letter_not_found` */
  async delete({ audience, id }: DeadLetterRequest): Promise<null> {
    if (!UUID.test(id) || !(await this.#options.store.delete(audience, id))) throw notFound();
    return null;
  }
}

/** As PostgreSQL gives it: whole numbers of eight bytes as text. */
interface Row {
  readonly id: string;
  readonly consumer: string;
  readonly code: string;
  readonly reason: string;
  readonly tries: string;
  readonly redrives: string;
  readonly subject: string;
  readonly topic: string;
  readonly event_id: string;
  readonly epoch: string;
  readonly sequence: string;
  readonly stored_at: string;
  readonly died_at: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
}

function itemOf(row: Row): DeadLetterItem {
  const { id, consumer, code, reason, epoch } = row;
  const source = row.headers.findLast(([name]) => name === HEADER.source)?.[1];
  return {
    id,
    consumer,
    code,
    reason,
    tries: Number(row.tries),
    redrives: Number(row.redrives),
    time: timeOf(row.died_at),
    event: {
      id: row.event_id,
      topic: row.topic,
      scope: parseStoredSubject(row.subject)!.scope,
      source: source?.slice(0, SOURCE_LIMIT).toWellFormed() ?? null,
      time: timeOf(row.stored_at),
      position: epoch === '' ? null : formatPosition({ epoch, sequence: Number(row.sequence) }),
    },
  };
}

/** The payload as JSON, where it is JSON that can be written again. */
function payloadOf(bytes: Buffer): Pick<DeadLetterView['event'], 'payload' | 'payload_base64'> {
  try {
    const payload: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    // 1e20 is written with 21 digits: what grows beyond what one answer carries goes out as it is.
    const fits = () => Buffer.byteLength(JSON.stringify(payload)) <= PAYLOAD_BYTES;
    if (!exceedsDepth(payload) && fits()) return { payload };
  } catch {
    // That it is no JSON may be why it is here.
  }
  return { payload_base64: bytes.toString('base64') };
}

function timeOf(nanoseconds: string): string {
  return new Date(Number(BigInt(nanoseconds) / 1_000_000n)).toISOString();
}

function notFound(): ProblemError {
  return new ProblemError('dead_letter_not_found', 'There is no such dead letter');
}

const PLACE = /^(0|[1-9][0-9]{0,18}):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function formatCursor({ died_at, id }: Pick<Row, 'died_at' | 'id'>): string {
  return Buffer.from(`${died_at}:${id}`).toString('base64url');
}

function parseCursor(cursor: string): { readonly diedAt: string; readonly id: string } {
  const match = PLACE.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  const [, diedAt = '', id = ''] = match ?? [];
  if (!match || formatCursor({ died_at: diedAt, id }) !== cursor || BigInt(diedAt) >= 2n ** 63n) {
    throw new ProblemError('request_invalid', 'The cursor is none of this list', {
      errors: [{ path: '/cursor', message: 'must be the next_cursor of another page' }],
    });
  }
  return { diedAt, id };
}
