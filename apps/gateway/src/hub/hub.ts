/**
 * The hub: one feed for each filter in which at least one connection here is interested, shared by all of
 * them whatever face they came by.
 */
import type { Bus } from '@posthorn/bus';
import type { Position } from '@posthorn/contracts';
import { type Encoding, Feed, type Listener, type Watcher } from './feed.js';
import type { Outbox } from './outbox.js';
import type { Turn } from './turn.js';

/** A subscription of one connection. */
export interface HubSubscription {
  /**
   * Resolves with the place in the stream at which it begins. The caller tells its peer, then calls
   * {@link begin}. Rejects with `unavailable` when the event store does not answer.
   */
  readonly started: Promise<Position>;
  /** Lets events flow: everything stored after `started`, nothing up to it. */
  begin(position: Position): void;
  close(): void;
}

export class Hub {
  readonly turn: Turn;
  readonly #bus: Bus;
  readonly #feeds = new Map<string, Feed>();

  constructor(bus: Bus, turn: Turn) {
    this.#bus = bus;
    this.turn = turn;
  }

  /** How many filters are followed now. */
  get size(): number {
    return this.#feeds.size;
  }

  /** Subscribes a connection to one topic's path. */
  subscribe(audience: string, path: string, outbox: Outbox, encoding: Encoding): HubSubscription {
    const feed = this.#feed(audience, path);
    return this.#subscription([feed], [feed.join(outbox, encoding)]);
  }

  /** Subscribes to several filters at once, with a say about each event. */
  watch(audience: string, filters: readonly string[], watcher: Watcher): HubSubscription {
    const feeds = filters.map((filter) => this.#feed(audience, filter));
    return this.#subscription(
      feeds,
      feeds.map((feed) => feed.watch(watcher)),
    );
  }

  #feed(audience: string, filter: string): Feed {
    const key = JSON.stringify([audience, filter]);
    const existing = this.#feeds.get(key);
    if (existing) return existing;
    const feed = new Feed(this.turn, () => {
      if (this.#feeds.get(key) === feed) this.#feeds.delete(key);
      feed.live.close();
    });
    feed.live = this.#bus.live({ audience, scope: 'global', filter }, (event) => feed.take(event));
    this.#feeds.set(key, feed);
    // A feed that could not start serves nobody: the next subscriber begins a new one.
    feed.live.started.catch(() => {
      if (this.#feeds.get(key) === feed) this.#feeds.delete(key);
    });
    return feed;
  }

  #subscription(feeds: readonly Feed[], listeners: readonly Listener[]): HubSubscription {
    // Asked after every feed has subscribed: what is stored later is heard by all of them.
    const horizon = this.#bus.horizon('global');
    const started = Promise.all([horizon, ...feeds.map((feed) => feed.live.started)]).then(
      ([position]) => position,
    );
    started.catch(() => {});
    return {
      started,
      begin: (position) => {
        for (const listener of listeners) listener.start(position);
      },
      close: () => {
        for (const listener of listeners) listener.leave();
      },
    };
  }
}
