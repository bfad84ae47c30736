/** How fast one user may publish over REST, where no connection holds the limit. */
import { BROADCAST, isPrivileged, type Principal, parseTopic, type Topic } from '@posthorn/contracts';
import type { GatewayConfig } from '../../config.js';
import { Buckets } from '../../http/buckets.js';
import { tooFast } from '../../session/limits.js';

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
