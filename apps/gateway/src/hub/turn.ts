/**
 * The end of a turn of the event loop. The number of writes is the cost of fan-out, so everything that goes
 * to a connection in one turn leaves in one write: batches are handed to outboxes first, outboxes then write.
 *
 * Nobody holds the loop for long: what does not fit into a slice of time goes on in the next turn, and what
 * comes meanwhile joins it.
 */

/** Something that has work to do once at the end of a turn. */
export interface Flushable {
  flush(): void;
}

/** How long one slice of flushing may take, in milliseconds, and how often the clock is read. */
const SLICE = 8;
const PER_LOOK = 16;

export class Turn {
  readonly #now: () => number;
  #batches: Flushable[] = [];
  #outboxes: Flushable[] = [];
  #scheduled = false;
  /** When this turn's work in microtasks began. */
  #since: number | undefined;

  /** @param now milliseconds, monotonic */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Flushes a topic's batch at the end of this turn, before any outbox. */
  batch(batch: Flushable): void {
    this.#batches.push(batch);
    this.#schedule();
  }

  /** Flushes a connection's outbox at the end of this turn. */
  outbox(outbox: Flushable): void {
    this.#outboxes.push(outbox);
    this.#schedule();
  }

  /** For work that goes on in microtasks: undefined while this turn may go on, else a promise of the next one. */
  breath(): Promise<void> | undefined {
    const now = this.#now();
    if (this.#since === undefined) {
      this.#since = now;
      setImmediate(() => {
        this.#since = undefined;
      });
    }
    return now - this.#since < SLICE ? undefined : new Promise((resolve) => setImmediate(resolve));
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#end());
  }

  #end(): void {
    const end = this.#now() + SLICE;
    const batches = this.#batches;
    this.#batches = [];
    const batchesLeft = this.#flush(batches, 1, end);
    this.#batches = batchesLeft.concat(this.#batches);
    // Nobody writes before all that is for it was handed over.
    if (batchesLeft.length === 0) {
      const outboxes = this.#outboxes;
      this.#outboxes = [];
      this.#outboxes = this.#flush(outboxes, PER_LOOK, end).concat(this.#outboxes);
    }
    this.#scheduled = false;
    if (this.#batches.length > 0 || this.#outboxes.length > 0) this.#schedule();
  }

  /** Flushes until the end of the slice, and returns what is left. */
  #flush(work: readonly Flushable[], perLook: number, end: number): Flushable[] {
    for (let i = 0; i < work.length; ) {
      work[i++]!.flush();
      if (i % perLook === 0 && this.#now() >= end) return work.slice(i);
    }
    return [];
  }
}
