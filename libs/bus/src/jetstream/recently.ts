/** Places in a stream by time: what was stored a moment ago. */
import type { Scope } from '@posthorn/contracts';
import { STREAMS } from '@posthorn/contracts';
import type { Horizon } from './horizon.js';
import { type LeaderParts, nextStored } from './leader.js';

export interface RecentlyParts extends LeaderParts {
  readonly horizon: Horizon;
}

/** For how long an answer is shared, in milliseconds. */
const SHARED = 1_000;

export class Recently {
  readonly #parts: RecentlyParts;
  readonly #scope: Scope;
  readonly #answers = new Map<number, { readonly at: number; readonly sequence: Promise<number> }>();

  constructor(parts: RecentlyParts, scope: Scope) {
    this.#parts = parts;
    this.#scope = scope;
  }

  /**
   * The last sequence that was stored longer ago than so many milliseconds.
   * @throws where the leader does not answer
   */
  before(ago: number): Promise<number> {
    const known = this.#answers.get(ago);
    const now = Date.now();
    if (known && now - known.at < SHARED) return known.sequence;
    const sequence = this.#search(now - ago);
    this.#answers.set(ago, { at: now, sequence });
    // An outage is not shared beyond those who met it.
    sequence.catch(() => this.#answers.delete(ago));
    return sequence;
  }

  /** Steps back from the end, farther each time, then closes in: what is recent is near. */
  async #search(moment: number): Promise<number> {
    const { first, last } = await this.#parts.horizon.extent();
    // A stream that never held anything begins at 0.
    const start = Math.max(first - 1, 0);
    let low = last;
    let high = last;
    for (let step = 1; ; step *= 4) {
      low = Math.max(start, last - step);
      if (low === start || (await this.#isBefore(low, moment))) break;
      high = low;
    }
    // What is stored up to `low` is older, what is stored after `high` is not.
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const next = await this.#next(middle);
      if (!next || next.time >= moment) high = middle;
      else low = Math.min(next.sequence, high);
    }
    return low;
  }

  /** Whether the first event after a place, and so all up to there, is older. */
  async #isBefore(place: number, moment: number): Promise<boolean> {
    const next = await this.#next(place);
    return next !== undefined && next.time < moment;
  }

  async #next(place: number): Promise<{ sequence: number; time: number } | undefined> {
    const stored = await nextStored(this.#parts, this.#scope, STREAMS[this.#scope].subjects, place);
    return stored ? { sequence: stored.seq, time: stored.time.getTime() } : undefined;
  }
}
