/**
 * The order of live copies, for each topic (docs/protocols/events.md, "Order, gaps, positions").
 *
 * RePublish can lose a copy around a leader change and has been seen to deliver out of stream order on
 * nats-server 2.9, so every copy is held against the last sequence that was delivered for its subject.
 */

/** What a copy is, by its sequence and by the one that its stream stored before it on the same subject. */
export type Verdict =
  /** Comes next. */
  | 'next'
  /** At or below what was delivered: a doubled or late copy, to be dropped. */
  | 'late'
  /** Something between the last one delivered and this one did not come. */
  | 'gap';

/** Keeps the last sequence for each path under one subscription. */
export class Order {
  readonly #last = new Map<string, number>();
  #floor: number;

  /** @param floor the stream's sequence at which the subscription began: nothing up to it is delivered */
  constructor(floor: number) {
    this.#floor = floor;
  }

  /**
   * Judges a copy and takes note of it unless it is late.
   * @param previous `Nats-Last-Sequence`; 0 for the first event of a subject, or after a delete
   */
  judge(path: string, sequence: number, previous: number): Verdict {
    const last = this.#last.get(path);
    const known = Math.max(last ?? 0, this.#floor);
    if (sequence <= known) return 'late';
    this.#last.set(path, sequence);
    // 0 after something was delivered can be a delete or a loss: both are worth a look.
    return previous > known || (previous === 0 && last !== undefined) ? 'gap' : 'next';
  }
}
