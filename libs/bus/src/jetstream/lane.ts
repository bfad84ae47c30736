/**
 * The order of one topic's live copies (docs/protocols/events.md, "Order, gaps, positions"): a pure state
 * machine, without clock or network.
 *
 * RePublish can lose a copy around a leader change, and nats-server 2.9 sends copies of concurrent publishes
 * out of the stream's order. So each copy is held against the last one that was passed on, and nothing goes
 * out ahead of what is missing before it.
 */

/** A live copy: its place in the stream, and the place of the one before it on the same subject (0: none). */
export interface Copy<T> {
  readonly sequence: number;
  readonly previous: number;
  readonly item: T;
}

/** Copies that wait behind a gap; what comes beyond them is read from the stream once it is its turn. */
const MAX_HELD = 4_096;

export class Lane<T> {
  #last: number;
  /** What `last` was before the latest that was passed on. */
  #before: number;
  #passedAny = false;
  readonly #risen: boolean;
  /** Copies behind a gap, by sequence. */
  #held: Copy<T>[] = [];
  /** The highest sequence that was heard of. */
  #heardOf = 0;

  /**
   * @param floor the place in the stream at which the lane begins: nothing up to it is passed on
   * @param risen whether something of this subject may have been passed on up to the floor, by a lane that was
   *   forgotten since: then a copy that says nothing was before it is worth a look
   */
  constructor(floor: number, risen = false) {
    this.#last = floor;
    this.#before = floor;
    this.#risen = risen;
  }

  /** The last sequence that was passed on, or the floor. */
  get last(): number {
    return this.#last;
  }

  /** The last sequence but one that was passed on, or the floor. */
  get before(): number {
    return this.#before;
  }

  /** Whether something may be missing before what was heard of. */
  get behind(): boolean {
    return this.#heardOf > this.#last;
  }

  /** Takes a copy: `next` may go out now, `late` was passed on already, `held` waits for what is missing. */
  offer(copy: Copy<T>): 'next' | 'late' | 'held' {
    if (copy.sequence <= this.#last) return 'late';
    if (!this.behind && this.#follows(copy)) {
      this.#pass(copy.sequence);
      return 'next';
    }
    this.#heardOf = Math.max(this.#heardOf, copy.sequence);
    const place = this.#held.findLastIndex(({ sequence }) => sequence <= copy.sequence);
    if (this.#held[place]?.sequence === copy.sequence) return 'late';
    if (this.#held.length < MAX_HELD) this.#held.splice(place + 1, 0, copy);
    return 'held';
  }

  /** Takes somebody's word that this sequence is stored: the lane is behind until it was passed on, or is gone. */
  hearOf(sequence: number): void {
    this.#heardOf = Math.max(this.#heardOf, sequence);
  }

  /** Goes back to a place: what was passed on beyond it is not in the stream. Held copies are forgotten. */
  retract(place: number): void {
    this.#last = place;
    this.#before = place;
    this.#heardOf = place;
    this.#held = [];
  }

  /** The held copies that follow on what was passed on, which they now are too. */
  release(): Copy<T>[] {
    let count = 0;
    for (; count < this.#held.length && this.#follows(this.#held[count]!); count++) {
      this.#pass(this.#held[count]!.sequence);
    }
    return this.#held.splice(0, count);
  }

  /**
   * Takes the word of the stream's leader: the first event it holds after `last`, or null for none. True where
   * that event is to be passed on as the leader gave it; else {@link release} says what can go out. Held copies
   * that the leader does not know are forgotten: they were deleted since, or never stored.
   */
  learn(stored: number | null): boolean {
    const first = stored ?? Number.POSITIVE_INFINITY;
    this.#held = this.#held.filter(({ sequence }) => sequence >= first);
    if (stored === null || stored > this.#heardOf) {
      this.#heardOf = this.#last;
      return false;
    }
    const [held] = this.#held;
    if (held?.sequence !== stored) {
      this.#pass(stored);
      return true;
    }
    // Proven to be next, whatever its own header says was before it.
    this.#held[0] = { ...held, previous: this.#last };
    return false;
  }

  /** After something was passed on, another predecessor is a delete, a loss or a forgery: all are worth a look. */
  #follows({ previous }: Copy<T>): boolean {
    if (this.#passedAny) return previous === this.#last;
    return previous <= this.#last && !(this.#risen && previous === 0);
  }

  #pass(sequence: number): void {
    this.#before = this.#last;
    this.#last = sequence;
    this.#passedAny = true;
    this.#heardOf = Math.max(this.#heardOf, sequence);
  }
}
