/**
 * The latest events of a feed, verified and in order: whoever comes back after a short while is served from
 * them, without a question to the event store.
 */
import type { BusEvent } from '@posthorn/bus';
import { type Cursor, hasWildcard, isBeyond, type Position, reachedBy } from '@posthorn/contracts';

/** What one window may hold, and for how long, in milliseconds. A topic kept for less is read from the store. */
const MAX_EVENTS = 1_024;
const MAX_BYTES = 1_048_576;
export const WINDOW_AGE = 30_000;
/** What an event costs beside its payload's bytes: the parsed payload costs about as much again, thrice. */
const EVENT_COST = 512;
const PAYLOAD_FACTOR = 4;

/** What keeping an event costs, in bytes. */
export function costOf({ bytes }: BusEvent): number {
  return EVENT_COST + PAYLOAD_FACTOR * bytes.length;
}

/** Bytes that all windows of a process hold together, and may. */
export class WindowBudget {
  readonly limit: number;
  used = 0;

  /** @param limit bytes */
  constructor(limit = 67_108_864) {
    this.limit = limit;
  }

  get exceeded(): boolean {
    return this.used > this.limit;
  }
}

interface Kept {
  readonly event: BusEvent;
  readonly at: number;
  readonly cost: number;
}

export class Window {
  readonly #filter: string;
  readonly #exact: boolean;
  readonly #budget: WindowBudget;
  readonly #now: () => number;
  /** In the order of delivery; what lies before `#first` is gone. */
  #events: Kept[] = [];
  #first = 0;
  #bytes = 0;
  /** Everything after it is here; undefined until that is known. */
  #floor: Position | undefined;
  #last: Position | undefined;

  /**
   * @param filter the feed's path filter
   * @param now milliseconds
   */
  constructor(filter: string, budget: WindowBudget, now: () => number = Date.now) {
    this.#filter = filter;
    this.#exact = !hasWildcard(filter);
    this.#budget = budget;
    this.#now = now;
  }

  /** The place of the latest event; undefined where there was none. */
  get last(): Position | undefined {
    return this.#last;
  }

  /** Says from where on the feed is complete. */
  open(floor: Position): void {
    this.#floor ??= floor;
  }

  /** Says that the feed has passed on everything up to a place, which may be in a stream that was made anew. */
  reach(place: Position): void {
    if (this.#floor && place.epoch !== this.#floor.epoch) this.#begin(place);
  }

  push(event: BusEvent): void {
    const { position } = event;
    if (this.#floor && position.epoch !== this.#floor.epoch) {
      this.#begin({ ...position, sequence: position.sequence - 1 });
    }
    const cost = costOf(event);
    // The payload is a view into a far larger buffer, which must not be kept for it.
    this.#events.push({ event: { ...event, bytes: Buffer.from(event.bytes) }, at: this.#now(), cost });
    this.#add(cost);
    this.#last = position;
    while (this.#size > MAX_EVENTS || this.#bytes > MAX_BYTES) this.#forget();
    while (this.#budget.exceeded && this.#size > 0) this.#forget();
  }

  /** Whether every event after the cursor is here. */
  covers(since: Cursor): boolean {
    const oldest = this.#now() - WINDOW_AGE;
    while (this.#size > 0 && this.#events[this.#first]!.at < oldest) this.#forget();
    const floor = this.#floor;
    if (!floor || since.epoch !== floor.epoch) return false;
    return reachedBy(since, this.#filter) >= floor.sequence;
  }

  /** The events after a cursor that it {@link covers}, in the order in which they were delivered. */
  after(since: Cursor): BusEvent[] {
    const found: BusEvent[] = [];
    for (let i = this.#first; i < this.#events.length; i++) {
      const { event } = this.#events[i]!;
      if (isBeyond(event.position, since, event.path)) found.push(event);
    }
    return found;
  }

  /** The first of {@link after}. */
  first(since: Cursor): BusEvent | undefined {
    let low = this.#first;
    if (this.#exact) {
      // In the order of the stream: what a client is behind by may be long.
      let high = this.#events.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        const { event } = this.#events[middle]!;
        if (isBeyond(event.position, since, event.path)) high = middle;
        else low = middle + 1;
      }
      return this.#events[low]?.event;
    }
    for (; low < this.#events.length; low++) {
      const { event } = this.#events[low]!;
      if (isBeyond(event.position, since, event.path)) return event;
    }
    return undefined;
  }

  /** Holds nothing any more. */
  close(): void {
    this.#budget.used -= this.#bytes;
    this.#bytes = 0;
    this.#events = [];
    this.#first = 0;
    this.#floor = undefined;
  }

  get #size(): number {
    return this.#events.length - this.#first;
  }

  /** The stream was made anew, or restored: then it may hold events up to this place that went by unseen. */
  #begin(floor: Position): void {
    this.close();
    this.#floor = { epoch: floor.epoch, sequence: floor.sequence };
  }

  #forget(): void {
    const { event, cost } = this.#events[this.#first]!;
    this.#add(-cost);
    const { epoch, sequence } = event.position;
    // Of several topics, an older event may have come later.
    if (this.#floor && sequence > this.#floor.sequence) this.#floor = { epoch, sequence };
    this.#first++;
    if (this.#first * 2 < this.#events.length) return;
    this.#events = this.#events.slice(this.#first);
    this.#first = 0;
  }

  #add(cost: number): void {
    this.#bytes += cost;
    this.#budget.used += cost;
  }
}
