/** Ids of events: a caller's own text, within limits. */
import { EVENT_ID_LIMIT, ProblemError } from '@posthorn/contracts';

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
