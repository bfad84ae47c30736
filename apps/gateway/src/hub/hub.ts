/**
 * The hub: one feed for each filter in which at least one connection here is interested, shared by all of
 * them whatever face they came by.
 */
import type { BusEvent } from '@posthorn/bus';
import type { Bus } from '@posthorn/bus/platform';
import type { Cursor, Position, ProblemError } from '@posthorn/contracts';
import { type Beginning, CatchUp, Readings, type ResumeOutcome } from './catch-up.js';
import { type Encoding, Feed, type Listener, type Watcher } from './feed.js';
import type { Sink } from './outbox.js';
import type { Turn } from './turn.js';
import { WINDOW_AGE, WindowBudget } from './window.js';

/** A subscription of one connection. */
export interface HubSubscription {
  /**
   * Resolves with the place after which it begins. The caller tells its peer, then calls {@link begin}. Rejects
   * with `unavailable` when the event store does not answer.
   */
  readonly started: Promise<Beginning>;
  /** Whether everything that was missed has been handed over. */
  readonly caughtUp: boolean;
  /** The place of the latest event that its feeds have heard, for one of a single topic. */
  readonly last: Position | undefined;
  /** Lets events flow: first what was missed, then live ones. */
  begin(): void;
  /**
   * Resolves once everything up to a place was handed over.
   * @throws ProblemError `unavailable`
   */
  verify(upTo: Position): Promise<void>;
  /**
   * What its feeds have heard beyond a place that was verified just now, all of it queued for its connection.
   * Undefined where that was too much.
   */
  heard(beyond: Position): readonly BusEvent[] | undefined;
  close(): void;
}

/** Who subscribes, and from where. */
export interface Subscriber {
  readonly outbox: Sink;
  /** What it has already; undefined begins with what comes now. */
  readonly since?: Cursor | undefined;
  /** Called once where it cannot be served any more; nothing comes after that. */
  readonly broken: (error: ProblemError) => void;
}

export interface HubOptions {
  readonly bus: Bus;
  readonly turn: Turn;
  /** How long the topics of a path filter are kept, in seconds; undefined: as long as their stream. */
  readonly retention: (audience: string, filter: string) => number | undefined;
  /** Counts resumptions of filters. */
  readonly resumed: (outcome: ResumeOutcome) => void;
}

export class Hub {
  readonly turn: Turn;
  readonly #bus: Bus;
  readonly #retention: HubOptions['retention'];
  readonly #resumed: HubOptions['resumed'];
  readonly #feeds = new Map<string, Feed>();
  readonly #budget = new WindowBudget();
  readonly #readings = new WeakMap<Sink, Readings>();

  constructor({ bus, turn, retention, resumed }: HubOptions) {
    this.turn = turn;
    this.#bus = bus;
    this.#retention = retention;
    this.#resumed = resumed;
  }

  /** How many filters are followed now. */
  get size(): number {
    return this.#feeds.size;
  }

  /** Subscribes a connection to one topic's path. */
  subscribe(audience: string, path: string, encoding: Encoding, subscriber: Subscriber): HubSubscription {
    return this.#subscription(audience, [path], subscriber, (feed) => feed.join(subscriber.outbox, encoding));
  }

  /** Subscribes to several filters at once, with a say about each event. */
  watch(
    audience: string,
    filters: readonly string[],
    watcher: Watcher,
    subscriber: Subscriber,
  ): HubSubscription {
    return this.#subscription(audience, filters, subscriber, (feed) => feed.watch(watcher));
  }

  #feed(audience: string, filter: string): Feed {
    const key = JSON.stringify([audience, filter]);
    const existing = this.#feeds.get(key);
    if (existing) return existing;
    const feed = new Feed({
      filter,
      turn: this.turn,
      budget: this.#budget,
      empty: () => {
        if (this.#feeds.get(key) === feed) this.#feeds.delete(key);
        feed.close();
      },
    });
    feed.live = this.#bus.live({ audience, scope: 'global', filter }, (event) => feed.take(event));
    if (mayBeEphemeral(filter)) {
      feed.ephemeral = this.#bus.ephemeral({ audience, filter }, (event) => feed.takeEphemeral(event));
    }
    this.#feeds.set(key, feed);
    feed.live.started.then(
      (position) => feed.window.open(position),
      // A feed that could not start serves nobody: the next subscriber begins a new one.
      () => {
        if (this.#feeds.get(key) === feed) this.#feeds.delete(key);
      },
    );
    return feed;
  }

  #subscription(
    audience: string,
    filters: readonly string[],
    { outbox, since, broken }: Subscriber,
    listen: (feed: Feed) => Listener,
  ): HubSubscription {
    const feeds = filters.map((filter) => this.#feed(audience, filter));
    const readings = this.#readings.get(outbox) ?? new Readings();
    this.#readings.set(outbox, readings);
    let closed = false;
    const parts = feeds.map(
      (feed) =>
        new CatchUp({
          bus: this.#bus,
          audience,
          feed,
          listener: listen(feed),
          windowServes: () => this.#windowServes(audience, feed.filter),
          resumed: this.#resumed,
          room: () => this.turn.breath() ?? outbox.room(),
          readings,
          broken: (error) => {
            if (closed) return;
            close();
            broken(error);
          },
        }),
    );
    const close = () => {
      closed = true;
      for (const part of parts) part.close();
    };
    const start = async (): Promise<Beginning> => {
      // Asked after every feed has subscribed: what is stored later is heard by all of them.
      const [horizon] = await Promise.all([
        this.#bus.horizon('global'),
        ...feeds.map((feed) => feed.live.started),
      ]);
      if (since) {
        const beginnings = await Promise.all(parts.map((part) => part.resume(since, horizon)));
        return beginnings.find(({ recovered }) => !recovered) ?? { position: since, recovered: true };
      }
      for (const part of parts) part.beginAt(horizon);
      return { position: horizon, recovered: true };
    };
    const started = start();
    started.catch(() => {});
    return {
      started,
      get caughtUp() {
        return parts.every(({ done }) => done);
      },
      get last() {
        return feeds[0]?.window.last;
      },
      begin: () => {
        for (const part of parts) part.run();
      },
      verify: async (upTo) => {
        await Promise.all(feeds.map((feed) => feed.verify(upTo)));
      },
      heard: (beyond) => {
        const windows = feeds.map(({ window }) => window);
        if (!windows.every((window) => window.covers(beyond))) return undefined;
        for (const part of parts) part.flush();
        return windows.flatMap((window) => window.after(beyond));
      },
      close,
    };
  }

  /** Not where a topic is kept for a shorter time than a window is. */
  #windowServes(audience: string, filter: string): boolean {
    const seconds = this.#retention(audience, filter);
    return seconds === undefined || seconds * 1_000 >= WINDOW_AGE;
  }
}

/** Templates of the catalogue, which have keys, are durable. */
function mayBeEphemeral(filter: string): boolean {
  return /^[-*>](?:\.|$)/.test(filter);
}
