/**
 * How much longer than it is written something stays: an hour. What one replica takes for just young enough to
 * write, another whose clock is ahead must not have removed already, or it would be there twice.
 */
const GRACE_MS = 3_600_000;

/** How long something is kept, counted from when its event was stored. */
export class Expiry {
  readonly #ageMs: number;
  readonly #now: () => number;

  /** @param now milliseconds since 1970 */
  constructor(ageMs: number, now: () => number = Date.now) {
    this.#ageMs = ageMs;
    this.#now = now;
  }

  /**
   * Whether what an event asks for would be too old to keep, and is not to be written any more.
   * @param ordinal when the event was stored, in nanoseconds since 1970
   */
  isExpired(ordinal: bigint): boolean {
    return ordinal < nanosecondsOf(this.#now() - this.#ageMs);
  }

  /** What was stored before this place may be removed, in nanoseconds since 1970. */
  get horizon(): bigint {
    return nanosecondsOf(this.#now() - this.#ageMs - GRACE_MS);
  }
}

function nanosecondsOf(ms: number): bigint {
  return BigInt(Math.max(0, Math.floor(ms))) * 1_000_000n;
}
