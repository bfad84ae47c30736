/**
 * What one connection is subscribed to. Where several subscriptions take the same event, one delivers it: that
 * of the topic itself, else the oldest pattern. A younger one that begins later takes over at its beginning,
 * so that nothing is delivered twice and nothing is missed in between.
 */
import {
  type Cursor,
  isBeyond,
  isPattern,
  matchesFilter,
  type Pattern,
  type Target,
} from '@posthorn/contracts';
import type { Level } from '@posthorn/service';
import type { Beginning } from '../hub/catch-up.js';
import type { FeedEvent } from '../hub/feed.js';
import type { HubSubscription } from '../hub/hub.js';

export class Subscription {
  readonly target: Target;
  /** As its client spells the target. */
  readonly name: string;
  /** What its client had of it already. */
  readonly since: Cursor | undefined;
  /** Set as soon as it listens; never for broadcasts, which come to every connection. */
  hub: HubSubscription | undefined;
  /** Where it begins; undefined until that is known. */
  start: Beginning | undefined;
  /** Deliveries of other subscriptions that depend on where this one begins. */
  readonly #undecided: (() => void)[] = [];
  /** Patterns that have left events to it before it had handed over what it missed. */
  readonly #relying = new Set<Subscription>();

  constructor(target: Target, name: string, since?: Cursor) {
    this.target = target;
    this.name = name;
    this.since = since;
  }

  /** Lets events flow, after those that it leaves to others. */
  begin(start: Beginning): void {
    this.start = start;
    this.#decide();
    this.hub?.begin();
  }

  /** Whether its client gets, or has got, everything after a cursor. */
  covers(since: Cursor): boolean {
    if (!this.start) return false;
    const { epoch, sequence } = this.start.position;
    return since.epoch === epoch && since.sequence >= sequence;
  }

  /** Ends it, and lets others deliver what waited for it. */
  close(): void {
    this.end();
    this.#decide();
  }

  /** Ends it together with all others. */
  end(): void {
    this.hub?.close();
  }

  /** Whether an event that this subscription takes too is its to deliver; undefined: `later` is called once that is known. */
  claims(event: FeedEvent, later: () => void): boolean | undefined {
    if (!this.start) {
      this.#undecided.push(later);
      return undefined;
    }
    // What lies before the place that it was resumed from, the client has.
    if (!('position' in event) || (this.since && this.start.recovered)) return true;
    return isBeyond(event.position, this.start.position, event.path);
  }

  /** Notes that a pattern leaves an event to this subscription. */
  rely(pattern: Subscription): void {
    if (this.hub?.caughtUp === false) this.#relying.add(pattern);
  }

  /** The patterns of whose events some would be missed if it ended now. */
  get relying(): readonly Subscription[] {
    return this.hub?.caughtUp === false ? [...this.#relying] : [];
  }

  #decide(): void {
    for (const later of this.#undecided.splice(0)) later();
  }
}

export class Subscriptions {
  /** By identity, in the order of subscribing. */
  readonly #all = new Map<string, Subscription>();
  readonly #open: Level;

  /** @param open counts them, together with those of others */
  constructor(open: Level) {
    this.#open = open;
  }

  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): IterableIterator<Subscription> {
    return this.#all.values();
  }

  get(target: Target): Subscription | undefined {
    return this.#all.get(identityOf(target));
  }

  add(subscription: Subscription): void {
    const before = this.#all.size;
    this.#all.set(identityOf(subscription.target), subscription);
    this.#open.inc(this.#all.size - before);
  }

  /**
   * Ends a subscription. Later calls change nothing.
   * @returns patterns that had left events to it which it has not delivered
   */
  remove(subscription: Subscription): readonly Subscription[] {
    const identity = identityOf(subscription.target);
    if (this.#all.get(identity) !== subscription) return [];
    const relying = subscription.relying.filter((pattern) => this.get(pattern.target) === pattern);
    this.#all.delete(identity);
    this.#open.dec();
    subscription.close();
    return relying;
  }

  clear(): void {
    for (const subscription of this.#all.values()) subscription.end();
    this.#open.dec(this.#all.size);
    this.#all.clear();
  }

  /** Hands an event that a pattern took to `deliver`, unless another subscription delivers it. */
  pass(event: FeedEvent, pattern: Subscription, deliver: (event: FeedEvent) => void): void {
    const again = () => {
      if (this.#all.get(identityOf(pattern.target)) === pattern) this.pass(event, pattern, deliver);
    };
    const leaveTo = (other: Subscription): boolean => {
      const claimed = other.claims(event, again);
      if (claimed) other.rely(pattern);
      return claimed !== false;
    };
    const exact = this.#all.get(event.path);
    if (exact && leaveTo(exact)) return;
    for (const other of this.#all.values()) {
      if (other === pattern) break;
      if (isPattern(other.target) && takes(other.target, event) && leaveTo(other)) return;
    }
    deliver(event);
  }
}

function takes(pattern: Pattern, event: FeedEvent): boolean {
  return pattern.filters.some((filter) => matchesFilter(filter, event.path));
}

/** However a name is spelled, it is one subscription. */
function identityOf(target: Target): string {
  return isPattern(target) ? target.filters.join(' ') : target.path;
}
