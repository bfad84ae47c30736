/**
 * Debouncing for durable consumers (docs/adr/0011-bursts-are-read-off-the-stream.md): of events that belong together
 * and follow each other closely the handler gets the last.
 *
 * The stream alone decides: an event is not the last where a later one of the same topic, with the same values, was
 * stored within the quiet time. So every process comes to the same answer at any time, and none has to remember
 * anything; what it sees itself only spares it questions.
 */
import { ProblemError } from '@posthorn/contracts';
import type { NextEvent } from './jetstream/next.js';
import { type By, checkBy, memberValues } from './member-values.js';
import type { BusEvent, Delivery } from './port.js';

export interface Debounce {
  /** Events of one topic whose payloads have the same values here belong together; one that lacks them stands alone. */
  readonly by: By;
  /** The quiet time, in milliseconds, at most an hour: that long after an event nothing may follow. */
  readonly ms: number;
}

/** An event waits in memory, unsettled. */
const LONGEST = 3_600_000;
/** Times are known in whole milliseconds, and a timer may be one early. */
const GRACE = 2;

/** The first event on the event's topic after another one, as the stream has it. */
export type NextOnTopic = (after: BusEvent) => Promise<NextEvent | undefined>;

/** An event that waits for its quiet time to pass. */
interface Waiting {
  readonly event: BusEvent;
  readonly storedAt: number;
  readonly overtake: () => void;
}

/** @throws ProblemError `request_invalid` */
export function checkDebounce(debounce: Debounce): void {
  checkBy('debounce', debounce, LONGEST);
}

export class Debouncer {
  readonly #by: By;
  readonly #ms: number;
  readonly #next: NextOnTopic;
  readonly #signal: AbortSignal;
  readonly #waiting = new Map<string, Set<Waiting>>();

  /** @param signal ends every wait; the events go back to the stream */
  constructor({ by, ms }: Debounce, next: NextOnTopic, signal: AbortSignal) {
    this.#by = by;
    this.#ms = ms;
    this.#next = next;
    this.#signal = signal;
  }

  /**
   * Whether an event is the last of its burst: resolves when that is known.
   * @throws ProblemError `unavailable` where the stream cannot be asked, or the consumer closes
   */
  async takes(event: BusEvent, delivery: Pick<Delivery, 'storedAt'>): Promise<boolean> {
    const values = memberValues(event.message, this.#by);
    if (values === undefined) return true;
    const storedAt = Number(delivery.storedAt / 1_000_000n);
    // This clock may be wrong, so it only says whether the stream may know by now.
    if (Date.now() - storedAt > this.#ms) {
      const verdict = await this.#verdict(event, storedAt, values);
      if (verdict !== undefined) return verdict;
    }
    if (await this.#isOvertaken(event, storedAt, values)) return false;
    // It was stored before it came here: whatever is not there now came too late.
    return (await this.#verdict(event, storedAt, values)) ?? true;
  }

  /** What the stream says; undefined where nothing has followed that could tell. */
  async #verdict(event: BusEvent, storedAt: number, values: string): Promise<boolean | undefined> {
    for (let last = event; ; ) {
      const next = await this.#next(last);
      if (!next) return undefined;
      if (next.storedAt - storedAt > this.#ms) return true;
      if (memberValues(next.event.message, this.#by) === values) return false;
      last = next.event;
    }
  }

  /** Waits for the quiet time; ends at once with true where a later event of the burst comes to this process. */
  #isOvertaken(event: BusEvent, storedAt: number, values: string): Promise<boolean> {
    const key = `${event.position.epoch} ${event.path} ${values}`;
    const burst = this.#waiting.get(key) ?? new Set<Waiting>();
    this.#waiting.set(key, burst);
    return new Promise<boolean>((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer);
        this.#signal.removeEventListener('abort', close);
        burst.delete(mine);
        if (burst.size === 0 && this.#waiting.get(key) === burst) this.#waiting.delete(key);
        settle();
      };
      const close = () => end(() => reject(new ProblemError('unavailable', 'The consumer closes')));
      const mine: Waiting = { event, storedAt, overtake: () => end(() => resolve(true)) };
      const timer = setTimeout(() => end(() => resolve(false)), this.#ms + GRACE);
      this.#signal.addEventListener('abort', close);
      burst.add(mine);
      for (const other of [...burst]) {
        if (this.#overtakes(mine, other)) other.overtake();
        else if (this.#overtakes(other, mine)) mine.overtake();
      }
      if (this.#signal.aborted) close();
    });
  }

  #overtakes(later: Waiting, earlier: Waiting): boolean {
    const after = later.event.position.sequence - earlier.event.position.sequence;
    return after > 0 && later.storedAt - earlier.storedAt <= this.#ms;
  }
}
