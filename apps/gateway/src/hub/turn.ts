/**
 * The end of a turn of the event loop. The number of writes is the cost of fan-out, so everything that goes
 * to a connection in one turn leaves in one write: batches are handed to outboxes first, outboxes then write.
 */

/** Something that has work to do once at the end of a turn. */
export interface Flushable {
  flush(): void;
}

export class Turn {
  #batches: Flushable[] = [];
  #outboxes: Flushable[] = [];
  #scheduled = false;

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

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#end());
  }

  #end(): void {
    const batches = this.#batches;
    this.#batches = [];
    for (const batch of batches) batch.flush();
    const outboxes = this.#outboxes;
    this.#outboxes = [];
    this.#scheduled = false;
    for (const outbox of outboxes) outbox.flush();
  }
}
