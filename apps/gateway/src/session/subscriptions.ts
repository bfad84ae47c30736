/**
 * What one connection is subscribed to. Where several subscriptions take the same event, one delivers it: that
 * of the topic itself, else the oldest pattern. A younger one that begins later takes over at its beginning,
 * so that nothing is delivered twice and nothing is missed in between.
 */
import type { BusEvent } from '@posthorn/bus';
import { isPattern, matchesFilter, type Pattern, type Position, type Target } from '@posthorn/contracts';
import { isAfter } from '../hub/feed.js';
import type { HubSubscription } from '../hub/hub.js';

export class Subscription {
  readonly target: Target;
  /** Set as soon as it listens; never for broadcasts, which come to every connection. */
  hub: HubSubscription | undefined;
  /** Where it begins; undefined until that is known. */
  start: Position | undefined;
  /** Deliveries of other subscriptions that depend on where this one begins. */
  readonly #undecided: (() => void)[] = [];

  constructor(target: Target) {
    this.target = target;
  }

  /** Lets events flow, after those that it leaves to others. */
  begin(start: Position): void {
    this.start = start;
    this.#decide();
    this.hub?.begin(start);
  }

  close(): void {
    this.hub?.close();
    this.#decide();
  }

  /** Whether an event that this subscription takes too is its to deliver; undefined: `later` is called once that is known. */
  claims(event: BusEvent, later: () => void): boolean | undefined {
    if (this.start) return isAfter(event.position, this.start);
    this.#undecided.push(later);
    return undefined;
  }

  #decide(): void {
    for (const later of this.#undecided.splice(0)) later();
  }
}

export class Subscriptions {
  /** By identity, in the order of subscribing. */
  readonly #all = new Map<string, Subscription>();

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): IterableIterator<Subscription> {
    return this.#all.values();
  }

  get(target: Target): Subscription | undefined {
    return this.#all.get(identityOf(target));
  }

  add(target: Target): Subscription {
    const subscription = new Subscription(target);
    this.#all.set(identityOf(target), subscription);
    return subscription;
  }

  /** Ends a subscription. Later calls change nothing. */
  remove(subscription: Subscription): void {
    const identity = identityOf(subscription.target);
    if (this.#all.get(identity) !== subscription) return;
    this.#all.delete(identity);
    subscription.close();
  }

  clear(): void {
    for (const subscription of this.#all.values()) subscription.hub?.close();
    this.#all.clear();
  }

  /** Hands an event that a pattern took to `deliver`, unless another subscription delivers it. */
  pass(event: BusEvent, pattern: Subscription, deliver: (event: BusEvent) => void): void {
    const again = () => {
      if (this.#all.get(identityOf(pattern.target)) === pattern) this.pass(event, pattern, deliver);
    };
    const exact = this.#all.get(event.path);
    if (exact && exact.claims(event, again) !== false) return;
    for (const other of this.#all.values()) {
      if (other === pattern) break;
      if (isPattern(other.target) && takes(other.target, event) && other.claims(event, again) !== false)
        return;
    }
    deliver(event);
  }
}

function takes(pattern: Pattern, event: BusEvent): boolean {
  return pattern.filters.some((filter) => matchesFilter(filter, event.path));
}

/** However a name is spelled, it is one subscription. */
function identityOf(target: Target): string {
  return isPattern(target) ? target.filters.join(' ') : target.path;
}
