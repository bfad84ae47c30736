/** Limits of callers over HTTP, where no connection holds them. */
import { Bucket } from '../session/limits.js';

/** Buckets of one age that are remembered. Who has that many keys is not held back by any of them. */
const KEPT = 65_536;

/** Buckets by key. One that has had the time to fill up is forgotten, since a new one is the same; at worst the oldest. */
export class Buckets {
  readonly #rate: number;
  readonly #burst: number;
  readonly #fillsIn: number;
  #recent = new Map<string, Bucket>();
  #older = new Map<string, Bucket>();
  #turned = Number.NEGATIVE_INFINITY;

  constructor(rate: number, burst: number) {
    this.#rate = rate;
    this.#burst = burst;
    this.#fillsIn = (burst / rate) * 1_000;
  }

  /** How many are remembered. */
  get size(): number {
    return this.#recent.size + this.#older.size;
  }

  /** As {@link Bucket.take}, of the bucket of a key. */
  take(key: string, now: number): number {
    this.#turn(now);
    let bucket = this.#recent.get(key);
    if (!bucket) {
      bucket = this.#older.get(key) ?? new Bucket(this.#rate, this.#burst, now);
      this.#older.delete(key);
      this.#recent.set(key, bucket);
    }
    return bucket.take(now);
  }

  /** What was not used between two turns is full. */
  #turn(now: number): void {
    if (now - this.#turned < this.#fillsIn && this.#recent.size < KEPT) return;
    this.#older = this.#recent;
    this.#recent = new Map();
    this.#turned = now;
  }
}
