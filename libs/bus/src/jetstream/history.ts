/** Stored events of an interest, in the order of the stream: what a reading of it gives, as events. */
import { parseStoredSubject, storedSubject } from '@posthorn/contracts';
import type { BusEvent, BusObserver, Interest } from '../port.js';
import { type EventReader, isRejection } from './event-reader.js';
import { readStored, type Stored, type StoredParts } from './stored.js';
import type { TopicDirectory } from './topic-directory.js';

export interface HistoryParts extends StoredParts {
  readonly reader: EventReader;
  readonly topics: TopicDirectory;
  readonly instance: string;
  readonly observer: BusObserver;
}

/** Part of a history: whatever is stored up to a place and was not in the parts before. */
export interface Page {
  readonly events: readonly BusEvent[];
  readonly upTo: number;
  /** The oldest sequence that the stream held after the page was read: what lay before it may be missing. */
  readonly first: number;
}

/**
 * Reads page by page, as {@link readStored}.
 * @throws ProblemError `unavailable` where the leader has not answered for some seconds, or the epoch changed
 */
export async function* readHistory(
  parts: HistoryParts,
  interest: Interest,
  after: number,
  until: () => number,
): AsyncGenerator<Page, void, void> {
  const { audience, scope, filter } = interest;
  const subject = storedSubject(audience, scope, parts.instance, filter);
  const epoch = parts.epochs.of(scope);
  for await (const { messages, upTo, first } of readStored(parts, { scope, subject }, after, until)) {
    yield { events: messages.flatMap((message) => eventsIn(parts, epoch, message)), upTo, first };
  }
}

/** The event in a stored message; none where it is not to be passed on. */
export function eventsIn(
  { reader, topics, observer }: HistoryParts,
  epoch: string,
  { sequence, subject, headers, data, storedAt }: Stored,
): BusEvent[] {
  const source = parseStoredSubject(subject);
  if (!source) return [];
  const retention = topics.cached(source.audience, source.path)?.retention;
  if (retention !== undefined && storedAt() < Date.now() - retention * 1_000) return [];
  const event = reader.read(source, { epoch, sequence }, headers, data);
  if (isRejection(event)) {
    observer.dropped(event.reason);
    return [];
  }
  observer.replayed(source.scope);
  return [event];
}
