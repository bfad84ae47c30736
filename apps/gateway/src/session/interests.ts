/**
 * What a connection wants to hear (docs/protocols/courier.md): its subscriptions, the broadcasts that every
 * connection hears, and the place up to which all of them are complete.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bus } from '@posthorn/bus/platform';
import {
  assertMaySubscribe,
  BROADCAST,
  type Cursor,
  countSubscriptions,
  filtersFor,
  formatCursor,
  isBeyond,
  isPattern,
  isPrivileged,
  mayReceive,
  type Position,
  type Principal,
  ProblemError,
  parseCursor,
  parseTarget,
  parseTopic,
  type Target,
  type Topic,
} from '@posthorn/contracts';
import type { Level, Tally } from '@posthorn/service';
import type { Beginning } from '../hub/catch-up.js';
import type { FeedEvent, Watcher } from '../hub/feed.js';
import type { Hub, HubSubscription, Subscriber } from '../hub/hub.js';
import type { Sink } from '../hub/outbox.js';
import type { ClientFrame } from './client-frame.js';
import type { Dialect } from './dialect.js';
import { Subscription, Subscriptions } from './subscriptions.js';

export interface InterestsOptions {
  readonly hub: Hub;
  readonly bus: Pick<Bus, 'horizon' | 'isEphemeral'>;
  /** Subscriptions that the connection may have. */
  readonly limit: number;
  /** Counts the subscriptions of all connections. */
  readonly subscriptions: Level;
  /** Counts events that are handed over one by one. */
  readonly delivered: Tally;
  readonly outbox: Sink;
  readonly dialect: Dialect;
  /** Whose connection it is, now: a renewed token may say otherwise than the first. */
  readonly principal: () => Principal;
  readonly send: (message: object) => void;
  readonly fail: (error: unknown, ref?: string) => void;
  /** Called where broadcasts, which the connection cannot ask for again, were missed. */
  readonly broken: () => void;
}

export const BROADCAST_TOPIC = parseTopic(BROADCAST);
/** How often a place is looked for up to which a busy connection is complete, and for how many milliseconds. */
const PLACES = 3;
const PATIENCE = 1_000;

export class Interests {
  readonly #options: InterestsOptions;
  readonly #subscriptions: Subscriptions;
  #broadcast: Subscription | undefined;
  #closed = false;

  constructor(options: InterestsOptions) {
    this.#options = options;
    this.#subscriptions = new Subscriptions(options.subscriptions);
  }

  /**
   * Hears broadcasts or does not, as the principal may. Resolves once it does; what is returned lets them flow.
   * @throws ProblemError `unavailable`
   */
  async followBroadcasts(): Promise<(() => void) | undefined> {
    const { hub, principal, broken, dialect } = this.#options;
    if (!mayReceive(principal(), BROADCAST_TOPIC)) this.#forgetBroadcasts();
    else if (!this.#broadcast) {
      const broadcast = new Subscription(BROADCAST_TOPIC, BROADCAST);
      this.#broadcast = broadcast;
      const outbox = dialect.broadcastSink(this.#options.outbox, () => this.#subscriptions.size > 0);
      broadcast.hub = hub.subscribe(principal().audience, BROADCAST_TOPIC.path, dialect.broadcasts, {
        outbox,
        broken,
      });
      try {
        const start = await broadcast.hub.started;
        return () => broadcast.begin(start);
      } catch (error) {
        this.#forgetBroadcasts();
        throw error;
      }
    }
    return undefined;
  }

  /** Answers `subscribed` once the subscription has begun. Rejects with the problem to answer. */
  async subscribe(frame: ClientFrame & { action: 'subscribe' }): Promise<void> {
    const { bus, limit, principal, send } = this.#options;
    const { topic: name, ref } = frame;
    const since = sinceOf(frame);
    const target = parseTarget(name, principal());
    assertMaySubscribe(principal(), target);
    const known = this.#subscriptions.get(target);
    if (!known && this.#wouldExceed(limit, target)) {
      throw new ProblemError('subscription_limit', `A connection may have ${limit} subscriptions`);
    }
    const subscription = known ?? this.#listen(target, name, since);
    // Subscribed already, under whatever spelling: it begins where it began.
    const [start, ephemeral] = await Promise.all([
      subscription.start ?? this.#started(subscription),
      !isPattern(target) && bus.isEphemeral(principal().audience, target),
    ]);
    if (this.#closed || this.#subscriptions.get(target) !== subscription) return;
    const recovered = subscription.start && since ? subscription.covers(since) : start.recovered;
    send({
      action: 'subscribed',
      topic: name,
      ...(ephemeral ? {} : { position: formatCursor(start.position) }),
      ...(since ? { recovered: recovered && !ephemeral } : {}),
      ref,
    });
    if (!subscription.start) subscription.begin(start);
  }

  unsubscribe({ topic, ref }: ClientFrame & { action: 'unsubscribe' }): void {
    const subscription = this.#subscriptions.get(parseTarget(topic, this.#options.principal()));
    if (subscription) this.#remove(subscription);
    this.#options.send({ action: 'unsubscribed', topic, ref });
  }

  /** Ends what the principal may not hear any more, and says so. */
  dropForbidden(): void {
    for (const subscription of this.#subscriptions) {
      try {
        assertMaySubscribe(this.#options.principal(), subscription.target);
      } catch (error) {
        this.#drop(subscription, error);
      }
    }
  }

  /**
   * Tells where the connection stands, as a cursor's text: everything up to there is queued for it, and nothing
   * beyond it. Undefined while it is still given what it missed, where events come so fast that no place can be
   * named, or where the event store does not say in time.
   * @param tell called once, and as soon as a place was found: it has to go out before anything else does
   */
  async place(tell: (place: string | undefined) => void): Promise<void> {
    let told = false;
    const tellOnce = (place?: string) => {
      if (!told) tell(place);
      told = true;
    };
    const tooLong = new AbortController();
    const patience = sleep(PATIENCE, undefined, { signal: tooLong.signal });
    await Promise.race([this.#findPlace(tellOnce), patience]).catch(() => {});
    tooLong.abort();
    tellOnce();
  }

  close(): void {
    this.#closed = true;
    this.#subscriptions.clear();
    this.#forgetBroadcasts();
  }

  /** @throws ProblemError `unavailable` */
  async #findPlace(found: (place: string) => void): Promise<void> {
    for (let i = 0; i < PLACES && !this.#closed; i++) {
      const upTo = await this.#options.bus.horizon('global');
      const heard = [...this.#subscriptions, this.#broadcast].flatMap((each) => each?.hub ?? []);
      if (!heard.every(({ caughtUp }) => caughtUp)) return;
      await Promise.all(heard.map((subscription) => subscription.verify(upTo)));
      const place = this.#placeOf(upTo, heard);
      if (place !== undefined) return found(place);
    }
  }

  #placeOf(upTo: Position, heard: readonly HubSubscription[]): string | undefined {
    const beyond = new Map<string, number>();
    for (const subscription of heard) {
      const events = subscription.heard(upTo);
      if (!events) return undefined;
      for (const { topic, path, position } of events) {
        if (this.#mayReceive(topic)) beyond.set(path, Math.max(position.sequence, beyond.get(path) ?? 0));
      }
    }
    try {
      return formatCursor({ ...upTo, beyond });
    } catch {
      // More topics than a cursor holds.
      return undefined;
    }
  }

  #wouldExceed(limit: number, target: Target): boolean {
    // What counts is never more than what there is.
    if (this.#subscriptions.size < limit) return false;
    const targets = Array.from(this.#subscriptions, (subscription) => subscription.target);
    return countSubscriptions([...targets, target], this.#options.principal()) > limit;
  }

  #listen(target: Target, name: string, since: Cursor | undefined): Subscription {
    const { hub, outbox, principal, dialect } = this.#options;
    const { audience } = principal();
    if (since && !isPattern(target) && target.path === BROADCAST_TOPIC.path)
      return this.#resumeBroadcasts(name, since);
    const subscription = new Subscription(target, name, since);
    this.#subscriptions.add(subscription);
    const subscriber: Subscriber = { outbox, since, broken: (error) => this.#drop(subscription, error) };
    if (isPattern(target)) {
      const filters = filtersFor(principal(), target);
      subscription.hub = hub.watch(audience, filters, this.#watcher(subscription), subscriber);
    } else if (target.path !== BROADCAST_TOPIC.path) {
      subscription.hub = hub.subscribe(audience, target.path, dialect.messages(name), subscriber);
    }
    return subscription;
  }

  /** Where a subscription begins. One of broadcasts shares what every connection has. */
  async #started(subscription: Subscription): Promise<Beginning> {
    const { hub = this.#broadcast?.hub } = subscription;
    try {
      if (hub) return await hub.started;
      return { position: await this.#options.bus.horizon('global'), recovered: true };
    } catch (error) {
      this.#subscriptions.remove(subscription);
      throw error;
    }
  }

  /** Delivers what a pattern takes, as far as the principal may receive it. Broadcasts come anyway. */
  #watcher(pattern: Subscription): Watcher {
    const { outbox, dialect, delivered } = this.#options;
    const deliver = (event: FeedEvent) => {
      delivered.inc();
      outbox.send(dialect.messages(event.topic.name).encode(event));
    };
    return (event) => {
      if (event.path === BROADCAST_TOPIC.path || !this.#mayReceive(event.topic)) return;
      this.#subscriptions.pass(event, pattern, deliver);
    };
  }

  #mayReceive(topic: Topic): boolean {
    const principal = this.#options.principal();
    return isPrivileged(principal) || mayReceive(principal, topic);
  }

  #forgetBroadcasts(): void {
    this.#broadcast?.end();
    this.#broadcast = undefined;
  }

  #resumeBroadcasts(name: string, since: Cursor): Subscription {
    const { hub, outbox, principal, broken, dialect, delivered } = this.#options;
    const current = this.#broadcast;
    if (current instanceof ResumedBroadcasts && !current.hub?.caughtUp) {
      // Unsubscribed by name in the middle of history: that goes on, and what it has not come to was not heard.
      this.#subscriptions.add(current);
      return current;
    }
    const resumed: ResumedBroadcasts = new ResumedBroadcasts(name, since, () => {
      const live = this.#broadcast;
      this.#broadcast = resumed;
      return live;
    });
    this.#subscriptions.add(resumed);
    const watcher: Watcher = (event) => {
      if (resumed.wasHeard(event)) return;
      delivered.inc();
      outbox.send(dialect.broadcasts.encode(event));
    };
    const subscriber: Subscriber = { outbox, since, broken };
    resumed.hub = hub.watch(principal().audience, [BROADCAST_TOPIC.path], watcher, subscriber);
    return resumed;
  }

  /** Ends a subscription, and with it those that would miss what they left to it. */
  #remove(subscription: Subscription): void {
    for (const pattern of this.#subscriptions.remove(subscription)) {
      const detail = `${subscription.name} ended before it had delivered what it shares with this: subscribe again`;
      this.#drop(pattern, new ProblemError('unavailable', detail));
    }
  }

  #drop(subscription: Subscription, error: unknown): void {
    const { send, fail } = this.#options;
    this.#remove(subscription);
    fail(error);
    send({ action: 'unsubscribed', topic: subscription.name });
  }
}

/**
 * Broadcasts from a cursor on. They take the place of those that the connection hears anyway, but for the ones
 * that have come since it was welcomed.
 */
class ResumedBroadcasts extends Subscription {
  readonly #replace: () => Subscription | undefined;
  /** The first and the last that came before. */
  #heard: { readonly after: Cursor; readonly upTo: Position } | undefined;
  #begun = false;

  /** @param replace puts it in the place of what it returns */
  constructor(name: string, since: Cursor, replace: () => Subscription | undefined) {
    super(BROADCAST_TOPIC, name, since);
    this.#replace = replace;
  }

  override begin(start: Beginning): void {
    this.#begun = true;
    const live = this.#replace();
    const last = live?.hub?.last;
    if (live?.start && last) this.#heard = { after: live.start.position, upTo: last };
    live?.end();
    super.begin(start);
  }

  /** Unsubscribing by name ends nothing: every connection hears broadcasts. */
  override close(): void {
    if (!this.#begun) super.close();
  }

  wasHeard(event: FeedEvent): boolean {
    if (!this.#heard || !('position' in event)) return false;
    const { after, upTo } = this.#heard;
    return isBeyond(event.position, after, event.path) && !isBeyond(event.position, upTo, event.path);
  }
}

/** @throws ProblemError `request_invalid` */
function sinceOf({ since }: ClientFrame & { action: 'subscribe' }): Cursor | undefined {
  if (since === undefined) return undefined;
  const cursor = parseCursor(since);
  if (cursor) return cursor;
  throw new ProblemError('request_invalid', 'since is no position', {
    errors: [{ path: '/since', message: 'must be a position or cursor as the server gave it' }],
  });
}
