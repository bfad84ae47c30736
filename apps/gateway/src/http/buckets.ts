/** Limits of callers over HTTP, where no connection holds them. */
import { Bucket } from '../session/limits.js';

/** Buckets by key. One that has had the time to fill up is forgotten: a new one is the same. */
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
    if (now - this.#turned < this.#fillsIn) return;
    this.#older = this.#recent;
    this.#recent = new Map();
    this.#turned = now;
  }
}
