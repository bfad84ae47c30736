/**
 * Resuming (docs/protocols/events.md, "Order, gaps, positions"): the events after a position from the stream,
 * up to a horizon that its leader gave after the live subscription was made, then live ones.
 */
import {
  type Cursor,
  furthestOf,
  type Position,
  ProblemError,
  reachedBy,
  storedSubject,
} from '@posthorn/contracts';
import type {
  BusEvent,
  History,
  Interest,
  LiveHandler,
  LiveSubscription,
  ResumeHandler,
  Resumption,
  ResumptionStart,
} from '../port.js';
import type { HistoryParts } from './history.js';
import { nextStored } from './leader.js';
import type { SharedHistory } from './shared-history.js';

/** What a stream holds now. `first` is beyond `last` where it holds nothing. */
export interface StreamExtent {
  readonly epoch: string;
  readonly first: number;
  readonly last: number;
}

/** A topic's retention, in milliseconds since 1970. */
export interface RetentionBound {
  /** What was stored before is not read any more. */
  readonly oldest: number;
  /** When the first event after the position was stored; undefined where there is none. */
  readonly next: number | undefined;
}

/** Whether everything after a position can still be read: `recovered`. */
export function judgePosition(since: Position, stream: StreamExtent, retention?: RetentionBound): boolean {
  if (since.epoch !== stream.epoch) return false;
  if (since.sequence > stream.last) return false;
  if (since.sequence + 1 < stream.first) return false;
  return !(retention?.next !== undefined && retention.next < retention.oldest);
}

/**
 * Judges a position and opens the history after it.
 * @throws ProblemError `unavailable` where the leader does not answer, or `until` is of another epoch
 */
export async function openHistory(
  parts: HistoryParts,
  shared: SharedHistory,
  interest: Interest,
  cursor: Cursor,
  until: Position,
): Promise<History> {
  const { audience, scope, filter } = interest;
  // One topic stands where the cursor says of it, several where all of them are complete.
  const since: Position = { epoch: cursor.epoch, sequence: reachedBy(cursor, filter) };
  const { first, last } = await parts.horizon.extent();
  const epoch = parts.epochs.of(scope);
  if (until.epoch !== epoch) throw new ProblemError('unavailable', 'The event store was replaced');
  const comparable = since.epoch === epoch && furthestOf(cursor) <= last;
  const retention = comparable ? await retentionBound(parts, interest, since.sequence) : undefined;
  const recovered = comparable && judgePosition(since, { epoch, first, last }, retention);
  const oldest = Math.max(first - 1, 0);
  const after = comparable ? Math.max(since.sequence, oldest) : oldest;
  const reading = shared.read({ audience, scope, filter, after, until: until.sequence, whole: recovered });
  return {
    recovered,
    after: { epoch, sequence: after },
    close: () => reading.close(),
    async *[Symbol.asyncIterator]() {
      for await (const event of reading) {
        if (!comparable || event.position.sequence > reachedBy(cursor, event.path)) yield event;
      }
    },
  };
}

async function retentionBound(
  parts: HistoryParts,
  { audience, scope, filter }: Interest,
  after: number,
): Promise<RetentionBound | undefined> {
  const seconds = parts.topics.retention(audience, filter);
  if (seconds === undefined) return undefined;
  const subject = storedSubject(audience, scope, parts.instance, filter);
  try {
    const next = await nextStored(parts, scope, subject, after);
    return { oldest: Date.now() - seconds * 1_000, next: next?.time.getTime() };
  } catch (cause) {
    throw new ProblemError('unavailable', 'The event store does not answer', { cause });
  }
}

/** What resuming is made of. */
export interface ResumeParts {
  live(interest: Interest, handler: LiveHandler): LiveSubscription;
  history(interest: Interest, since: Cursor, until: Position): Promise<History>;
}

/** Live events that wait while history is read. Beyond them the rest is read from history too, in another round. */
const MAX_HELD = 1_024;

export function resume(
  parts: ResumeParts,
  interest: Interest,
  since: Cursor,
  handler: ResumeHandler,
): Resumption {
  return new Resuming(parts, interest, since, handler);
}

/** The history up to the place at which a live subscription begins. */
interface Round {
  readonly history: History;
  readonly horizon: Position;
}

class Resuming implements Resumption {
  readonly started: Promise<ResumptionStart>;
  readonly caughtUp: Promise<void>;
  readonly #parts: ResumeParts;
  readonly #interest: Interest;
  readonly #handler: ResumeHandler;
  /** Up to here everything was delivered. */
  #since: Cursor;
  /** Live events that wait for those before them; undefined once they flow. */
  #held: BusEvent[] | undefined = [];
  #overflown = false;
  #closed = false;
  #live: LiveSubscription | undefined;
  #history: History | undefined;

  constructor(parts: ResumeParts, interest: Interest, since: Cursor, handler: ResumeHandler) {
    this.#parts = parts;
    this.#interest = interest;
    this.#since = since;
    this.#handler = handler;
    const first = this.#subscribe();
    this.started = first.then(({ history: { after, recovered } }) => ({ position: after, recovered }));
    this.caughtUp = first.then((round) => this.#catchUp(round));
    this.started.catch(() => {});
    this.caughtUp.catch(() => this.close());
  }

  close(): void {
    this.#closed = true;
    this.#live?.close();
    this.#history?.close();
  }

  async #subscribe(): Promise<Round> {
    this.#live = this.#parts.live(this.#interest, (event) => this.#take(event));
    const horizon = await this.#live.started;
    const history = await this.#parts.history(this.#interest, this.#since, horizon);
    this.#history = history;
    if (this.#closed) history.close();
    if (!history.recovered) this.#since = history.after;
    return { history, horizon };
  }

  async #catchUp(first: Round): Promise<void> {
    // The caller learns the beginning before the first event.
    await new Promise(setImmediate);
    for (let round = first; ; round = await this.#subscribeAgain()) {
      for await (const event of round.history) await this.#handler(event);
      if (this.#closed) return;
      const beyond = await this.#drain();
      if (this.#closed || !this.#overflown) return;
      this.#since = { ...round.horizon, beyond };
    }
  }

  async #subscribeAgain(): Promise<Round> {
    this.#held = [];
    this.#overflown = false;
    const round = await this.#subscribe();
    if (round.history.recovered) return round;
    throw new ProblemError('unavailable', 'History was dropped while it was read: resume again');
  }

  /** Delivers what was held, in the order in which it came, until events flow or too many came meanwhile. */
  async #drain(): Promise<Map<string, number>> {
    const beyond = new Map<string, number>();
    for (const held = this.#held!; held.length > 0; ) {
      for (const event of held.splice(0)) {
        if (this.#closed) return beyond;
        if (this.#isDelivered(event)) continue;
        await this.#handler(event);
        beyond.set(event.path, event.position.sequence);
      }
    }
    if (!this.#overflown) this.#held = undefined;
    return beyond;
  }

  #take(event: BusEvent): void {
    if (this.#closed || this.#overflown) return;
    if (!this.#held) {
      if (!this.#isDelivered(event)) void this.#handler(event);
    } else if (this.#held.push(event) >= MAX_HELD) {
      this.#overflown = true;
      this.#live?.close();
    }
  }

  /** A position can lie beyond the horizon where it was given out by another connection meanwhile. */
  #isDelivered({ path, position }: BusEvent): boolean {
    return position.epoch === this.#since.epoch && position.sequence <= reachedBy(this.#since, path);
  }
}
