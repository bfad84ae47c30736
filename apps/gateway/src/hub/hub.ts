/**
 * The hub: one feed for each filter in which at least one connection here is interested, shared by all of
 * them whatever face they came by.
 */
import type { BusEvent } from '@posthorn/bus';
import type { Bus } from '@posthorn/bus/platform';
import type { Cursor, Position, ProblemError, Topic, Tracer } from '@posthorn/contracts';
import type { Tally } from '@posthorn/service';
import { type Beginning, CatchUp, Readings, type ResumeOutcome } from './catch-up.js';
import { Deliveries } from './deliveries.js';
import { type Encoding, Feed, type Listener, type Watcher } from './feed.js';
import { Follow, type FollowOptions } from './follow.js';
import { Lingering } from './lingering.js';
import type { Sink } from './outbox.js';
import { Past } from './past.js';
import { Poll } from './poll.js';
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

/** Who asks for the next event, and from where. */
export interface PollRequest {
  readonly audience: string;
  /** Whose poll it is: there is a bound to the feeds that linger after each one's. */
  readonly owner: string;
  /** Path filters. */
  readonly filters: readonly string[];
  /** What it has already; undefined: what was stored before the last `recent` milliseconds. */
  readonly since: Cursor | undefined;
  readonly recent: number;
  /** Whether it may have an event that a pattern took. */
  readonly mayReceive: (topic: Topic) => boolean;
}

/** Who follows several filters at once, and from where. */
export interface FollowRequest extends Pick<FollowOptions, 'audience' | 'since' | 'mayReceive' | 'reader'> {
  /** Path filters. */
  readonly filters: readonly string[];
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
  /** Counts events of single topics handed to connections; who watches counts by himself. */
  readonly delivered: Tally;
  /** Counts pages that polls have read from the store. */
  readonly pageRead: () => void;
  /** Records what goes out of events whose publishers are traced. */
  readonly tracer?: Tracer | undefined;
}

/** How long a feed goes on after its last poll, and how often is looked for those that need not, in milliseconds. */
const LINGER = 30_000;
const SWEEP = 5_000;

export class Hub {
  readonly turn: Turn;
  readonly #bus: Bus;
  readonly #retention: HubOptions['retention'];
  readonly #resumed: HubOptions['resumed'];
  readonly #pageRead: HubOptions['pageRead'];
  readonly #delivered: Tally;
  readonly #deliveries: Deliveries | undefined;
  readonly #feeds = new Map<string, Feed>();
  readonly #budget = new WindowBudget();
  readonly #readings = new WeakMap<Sink, Readings>();
  readonly #lingering = new Lingering();
  #sweeper: NodeJS.Timeout | undefined;

  constructor({ bus, turn, retention, resumed, delivered, pageRead, tracer }: HubOptions) {
    this.turn = turn;
    this.#bus = bus;
    this.#retention = retention;
    this.#resumed = resumed;
    this.#pageRead = pageRead;
    this.#delivered = delivered;
    this.#deliveries = tracer && new Deliveries(tracer, turn);
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

  /** Asks for the oldest event after a cursor on any of several filters. */
  poll(request: PollRequest): Poll {
    const feeds = request.filters.map((filter) => this.#feed(request.audience, filter));
    for (const feed of feeds) {
      feed.hold();
      this.#lingering.delete(feed);
    }
    const { bus, turn } = { bus: this.#bus, turn: this.turn };
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP).unref();
    return new Poll({ ...request, bus, turn, feeds, over: () => this.#letGo(feeds, request.owner) });
  }

  /** Follows several filters at once, with a cursor after each event. */
  follow({ filters, ...request }: FollowRequest): Follow {
    const feeds = filters.map((filter) => this.#feed(request.audience, filter));
    for (const feed of feeds) feed.hold();
    return new Follow({
      ...request,
      bus: this.#bus,
      turn: this.turn,
      feeds,
      windowServes: ({ filter }) => this.#windowServes(request.audience, filter),
      resumed: this.#resumed,
      over: () => {
        for (const feed of feeds) feed.release();
      },
    });
  }

  /** Ends what lingers. */
  close(): void {
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #letGo(feeds: readonly Feed[], owner: string): void {
    const now = Date.now();
    for (const feed of feeds) {
      if (this.#budget.exceeded) {
        // What nobody uses now is the first to go.
        this.#lingering.delete(feed);
        feed.release();
        continue;
      }
      // In this order: a feed that lingers is not ended by being left.
      const instead = this.#lingering.keep(feed, owner, now);
      if (instead && !instead.isUsed) this.#end(instead);
      feed.release();
    }
  }

  #sweep(): void {
    const oldest = this.#budget.exceeded ? Number.POSITIVE_INFINITY : Date.now() - LINGER;
    for (const feed of this.#lingering.takeUpTo(oldest)) if (!feed.isUsed) this.#end(feed);
    for (const feed of this.#feeds.values()) feed.past.sweep();
    if (this.#feeds.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #end(feed: Feed): void {
    if (this.#feeds.get(feed.key) === feed) this.#feeds.delete(feed.key);
    feed.close();
  }

  #feed(audience: string, filter: string): Feed {
    const key = JSON.stringify([audience, filter]);
    const existing = this.#feeds.get(key);
    if (existing) return existing;
    const budget = this.#budget;
    const feed = new Feed({
      key,
      filter,
      turn: this.turn,
      budget,
      past: new Past({ bus: this.#bus, audience, filter, budget, pageRead: this.#pageRead }),
      delivered: this.#delivered,
      empty: () => {
        if (!this.#lingering.has(feed)) this.#end(feed);
      },
    });
    const deliveries = this.#deliveries;
    feed.live = this.#bus.live({ audience, scope: 'global', filter }, (event) => {
      const delivery = deliveries?.begin(event, feed);
      feed.take(event);
      if (delivery) deliveries?.follow(delivery);
    });
    if (mayBeEphemeral(filter)) {
      feed.ephemeral = this.#bus.ephemeral({ audience, filter }, (event) => {
        const delivery = deliveries?.begin(event, feed);
        feed.takeEphemeral(event);
        if (delivery) deliveries?.follow(delivery);
      });
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
