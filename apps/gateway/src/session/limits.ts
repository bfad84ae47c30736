/** Limits of one connection: plain arithmetic on a clock that is passed in. */
import { ProblemError } from '@posthorn/contracts';

/** A token bucket: `rate` per second on average, `burst` at once. */
export class Bucket {
  readonly #rate: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  /** @param now milliseconds */
  constructor(rate: number, burst: number, now: number) {
    this.#rate = rate;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = now;
  }

  /** Takes one token, or says in how many seconds there will be one. 0 means taken. */
  take(now: number): number {
    this.#refill(now);
    if (this.#tokens < 1) return (1 - this.#tokens) / this.#rate;
    this.#tokens -= 1;
    return 0;
  }

  /** Takes one token even where there is none. As {@link debt} afterwards. */
  overdraw(now: number): number {
    this.#refill(now);
    this.#tokens -= 1;
    return this.debt(now);
  }

  /** In how many seconds what was overdrawn is paid back, 0 for nothing. */
  debt(now: number): number {
    this.#refill(now);
    return Math.max(0, -this.#tokens / this.#rate);
  }

  #refill(now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + (Math.max(0, now - this.#at) * this.#rate) / 1_000);
    this.#at = now;
  }
}

/** What a caller is told who came too fast, and may come again after so many seconds. */
export function tooFast(seconds: number): ProblemError {
  return new ProblemError('rate_limited', `Too many at once: again in ${seconds.toFixed(2)} s`, {
    retryAfter: seconds,
  });
}

/** Counts strikes in a sliding minute. */
export class Strikes {
  readonly #limit: number;
  #times: number[] = [];

  /** @param limit how many are still borne in a minute */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds one; true when there were more than the limit within the last minute. */
  add(now: number): boolean {
    this.#times = this.#times.filter((time) => now - time < 60_000);
    this.#times.push(now);
    return this.#times.length > this.#limit;
  }
}
