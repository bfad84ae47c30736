/**
 * The end of a turn of the event loop. The number of writes is the cost of fan-out, so everything that goes
 * to a connection in one turn leaves in one write: batches are handed to outboxes first, outboxes then write.
 *
 * Nobody holds the loop for long: what does not fit into a slice of time goes on in the next turn, and what
 * comes meanwhile joins it. After a flush the next one waits for half of the time that it took: publishers who
 * answer to what was just written then find their events in one write, instead of in every second one, and the
 * more there is to write, the more goes into each write. Where waiting has joined nothing, because each event is
 * for others, it is tried again only now and then.
 */

/** Something that has work to do once at the end of a turn. */
export interface Flushable {
  flush(): void;
}

/** How long one slice of flushing may take, in milliseconds, and how often the clock is read. */
const SLICE = 9;
const PER_LOOK = 16;
/** For how long events are gathered after a flush, as a part of the time that it took, and at most, in milliseconds. */
const GATHER = 0.5;
const MOST_GATHERED = 5;
/** Of so many flushes in a row for which nothing was joined, only the first two are waited after. */
const FUTILE = 16;

export interface TurnOptions {
  /** Milliseconds, monotonic. */
  readonly now?: () => number;
  /**
   * Told of each time that all was written which had come until then: when the first event in it was published, as
   * its copy says.
   */
  readonly written?: (published: string) => void;
}

export class Turn {
  readonly #now: () => number;
  readonly #written: (published: string) => void;
  #batches: Flushable[] = [];
  #outboxes: Flushable[] = [];
  /** Outboxes that are being flushed, slice by slice. */
  #writing: Flushable[] = [];
  #scheduled = false;
  /** For how long was flushed since nothing was left, in milliseconds, and when the next flush may begin. */
  #flushed = 0;
  #gatherUntil = 0;
  /** Flushes since an event last joined a batch. */
  #futile = 0;
  /** When the first event was published that is gathered now, and that of what is being written. */
  #gathered: string | undefined;
  #onItsWay: string | undefined;
  /** When this turn's work in microtasks began. */
  #since: number | undefined;

  constructor({ now = () => performance.now(), written = () => {} }: TurnOptions = {}) {
    this.#now = now;
    this.#written = written;
  }

  /** Flushes a topic's batch at the end of this turn, before any outbox. */
  batch(batch: Flushable): void {
    this.#batches.push(batch);
    this.#schedule();
  }

  /** Says that an event has joined a batch. */
  joined(): void {
    this.#futile = 0;
  }

  /** Says that an event was handed to all whom it concerns. Where that was nobody, nothing is to be flushed. */
  handedOver(published: string | undefined): void {
    if (this.#scheduled) this.#gathered ??= published;
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
    setImmediate(() => this.#gather());
  }

  /** A timer would be too coarse, and would sleep while there are events to read: the loop goes round instead. */
  #gather(): void {
    if (this.#now() < this.#gatherUntil) setImmediate(() => this.#gather());
    else this.#end();
  }

  #end(): void {
    const begin = this.#now();
    const end = begin + SLICE;
    // What comes while outboxes are being written waits, so that each of them gets it in one piece.
    if (this.#writing.length === 0) {
      const batches = this.#batches;
      this.#batches = [];
      this.#batches = this.#flush(batches, 1, end).concat(this.#batches);
      if (this.#batches.length === 0) {
        this.#writing = this.#outboxes;
        this.#outboxes = [];
        this.#onItsWay = this.#gathered;
        this.#gathered = undefined;
      }
    }
    this.#writing = this.#flush(this.#writing, PER_LOOK, end);
    if (this.#onItsWay !== undefined && this.#writing.length === 0) {
      this.#written(this.#onItsWay);
      this.#onItsWay = undefined;
    }
    this.#scheduled = false;
    const now = this.#now();
    this.#flushed += now - begin;
    if (this.#writing.length === 0 && this.#batches.length === 0) {
      const gathers = this.#futile++ % FUTILE < 2;
      this.#gatherUntil = gathers ? now + Math.min(GATHER * this.#flushed, MOST_GATHERED) : 0;
      this.#flushed = 0;
    }
    if (this.#writing.length + this.#batches.length + this.#outboxes.length > 0) this.#schedule();
    else this.#gathered = undefined;
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
