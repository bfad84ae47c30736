/** The next stored event of an interest, asked of the stream's leader: for whoever wants one, not a history. */
import { type Cursor, ProblemError, reachedBy, storedSubject } from '@posthorn/contracts';
import type { BusEvent, Interest } from '../port.js';
import { eventsIn, type HistoryParts } from './history.js';
import { nextStored, storedHeaders } from './leader.js';

/** An event as the stream holds it. */
export interface NextEvent {
  readonly event: BusEvent;
  /** When the stream stored it, in milliseconds since 1970. */
  readonly storedAt: number;
}

/**
 * The first event after a cursor, undefined where the stream holds none now, or the cursor is of another one. Rejected
 * events are passed over.
 * @throws ProblemError `unavailable`
 */
export async function nextEvent(
  parts: HistoryParts,
  { audience, scope, filter }: Interest,
  since: Cursor,
): Promise<NextEvent | undefined> {
  const subject = storedSubject(audience, scope, parts.instance, filter);
  const epoch = parts.epochs.of(scope);
  if (since.epoch !== epoch) return undefined;
  for (let after = reachedBy(since, filter); ; ) {
    const stored = await nextStored(parts, scope, subject, after).catch((cause) => {
      throw new ProblemError('unavailable', 'The event store does not answer', { cause });
    });
    if (!stored) return undefined;
    const storedAt = stored.time.getTime();
    const [event] = eventsIn(parts, epoch, {
      sequence: stored.seq,
      subject: stored.subject,
      headers: storedHeaders(stored),
      data: stored.data,
      storedAt: () => storedAt,
    });
    if (event && event.position.sequence > reachedBy(since, event.path)) return { event, storedAt };
    after = stored.seq;
  }
}
