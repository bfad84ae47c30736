/** Ids of events: a caller's own text, within limits, or a UUIDv7. */
import { randomFillSync } from 'node:crypto';
import { EVENT_ID_LIMIT, ProblemError } from '@posthorn/contracts';
import { v7 as uuidv7 } from 'uuid';

/** Randomness for many ids: to fetch it for each was a tenth of what a publish cost. */
const pool = Buffer.allocUnsafe(4_096);
const PER_ID = 16;
let used = pool.length;

/** A new UUIDv7. */
export function newEventId(): string {
  if (used + PER_ID > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += PER_ID;
  return uuidv7({ random: pool.subarray(used - PER_ID, used) });
}

/** Printable text without line breaks: an id stands in a header, in frames and in lines of an event stream. */
const ID = /^[^\p{Cc}\s](?:[^\p{Cc}]*[^\p{Cc}\s])?$/u;

/** Whether a text can be an event's id. */
export function isEventId(id: unknown): id is string {
  return typeof id === 'string' && id.length <= EVENT_ID_LIMIT && id.isWellFormed() && ID.test(id);
}

/**
 * An event id or idempotency key from a caller.
 * @throws ProblemError `request_invalid`
 */
export function checkEventId(id: string | undefined): string | undefined {
  if (id === undefined || isEventId(id)) return id;
  const message = `must be a printable text of 1 to ${EVENT_ID_LIMIT} characters`;
  throw new ProblemError('request_invalid', `An id ${message}`, { errors: [{ path: '/id', message }] });
}
