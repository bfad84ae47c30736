/** How fast one user may publish over REST, where no connection holds the limit. */
import { BROADCAST, isPrivileged, type Principal, parseTopic, type Topic } from '@posthorn/contracts';
import type { GatewayConfig } from '../../config.js';
import { Bucket, tooFast } from '../../session/limits.js';

const BROADCAST_PATH = parseTopic(BROADCAST).path;

type Limits = Pick<GatewayConfig, 'publishRate' | 'publishBurst' | 'broadcastRate' | 'broadcastBurst'>;

/** A bucket for each user and kind. Services and admins are not limited. */
export class PublishRates {
  readonly #publishes: Buckets;
  readonly #broadcasts: Buckets;
  readonly #clock: () => number;

  /** @param clock milliseconds that never go back */
  constructor(limits: Limits, clock: () => number = () => performance.now()) {
    this.#publishes = new Buckets(limits.publishRate, limits.publishBurst);
    this.#broadcasts = new Buckets(limits.broadcastRate, limits.broadcastBurst);
    this.#clock = clock;
  }

  /** @throws ProblemError `rate_limited` */
  take(principal: Principal, topic: Topic): void {
    if (isPrivileged(principal)) return;
    const buckets = topic.path === BROADCAST_PATH ? this.#broadcasts : this.#publishes;
    const seconds = buckets.take(`${principal.audience}\0${principal.sub ?? ''}`, this.#clock());
    if (seconds === 0) return;
    throw tooFast(seconds);
  }
}

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
