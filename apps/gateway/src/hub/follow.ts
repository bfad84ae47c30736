/**
 * A stream's way through several filters at once, with a cursor after each event (docs/protocols/inthe-am.md, "Event
 * stream"). What its client missed comes in the order of the stream, out of windows and pages; then live events, those of
 * one turn in the order of the stream too. Where more topics are beyond what is complete for all than a cursor
 * holds, the event store is asked how far that is, and events wait for the answer in the windows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BusEvent, EphemeralEvent } from '@posthorn/bus';
import type { Bus } from '@posthorn/bus/platform';
import {
  asProblem,
  type Cursor,
  furthestOf,
  isBeyond,
  matchesFilter,
  type Position,
  ProblemError,
  reachedBy,
  type Topic,
} from '@posthorn/contracts';
import { Readings, type ResumeOutcome } from './catch-up.js';
import type { Feed, FeedEvent, Listener } from './feed.js';
import { type Page, readPage } from './past.js';
import { placeOf, settled, taken } from './progress.js';
import type { Flushable, Turn } from './turn.js';

/** Takes what a stream is told. */
export interface Reader {
  /**
   * Takes one event.
   * @param place what its client has with that, as a cursor's text; undefined where the event is stored nowhere
   */
  take(event: FeedEvent, place: string | undefined): void;
  /** Says when it can take more of what was missed; undefined: now. */
  room(): Promise<void> | undefined;
  /** Called once where it cannot be served any more; nothing comes after that. */
  broken(error: ProblemError): void;
}

export interface FollowOptions {
  readonly bus: Pick<Bus, 'history' | 'horizon'>;
  readonly turn: Turn;
  readonly audience: string;
  readonly feeds: readonly Feed[];
  /** What its client has already; undefined begins with what comes now. */
  readonly since: Cursor | undefined;
  readonly mayReceive: (topic: Topic, path: string) => boolean;
  /** Whether what a feed's window holds is all that a client may ask for. */
  readonly windowServes: (feed: Feed) => boolean;
  /** Called with how a client's cursor could be served, for each feed. */
  readonly resumed: (outcome: ResumeOutcome) => void;
  readonly reader: Reader;
  /** Called once, when it has ended. */
  readonly over: () => void;
}

/** Where a stream begins. */
export interface FollowStart {
  /** As a cursor's text. */
  readonly place: string;
  /** Whether everything after the cursor that was asked for is still kept. */
  readonly recovered: boolean;
}

/** What is known of one feed's events after the cursor. */
interface Stretch {
  readonly events: readonly BusEvent[];
  /** There is no other up to here, as far as is known. */
  readonly upTo: number;
  /** There is no other up to here. */
  readonly complete: number;
}

/** The pause before an event store that did not answer is asked again, in milliseconds. */
const PAUSE = 1_000;
/**
 * A cursor of more topics than that is made shorter when the ids that held them have cost as much as asking, so many
 * bytes for each feed.
 */
const LONG_CURSOR = 16;
const PRICE = 1_024;
/** What the pages of one stream may cost together while it catches up, in bytes, and the least of each. */
const PAGES_COST = 2_097_152;
const LEAST_PAGE = 16_384;

export class Follow implements Flushable {
  /**
   * Resolves with the place after which it begins. The caller tells its peer, then calls {@link begin}.
   * @throws ProblemError `unavailable`
   */
  readonly started: Promise<FollowStart>;
  readonly #options: FollowOptions;
  readonly #readings = new Readings();
  #cursor: Cursor = { epoch: '', sequence: 0 };
  /** Where the stream stood at the beginning. */
  #present = 0;
  /** Up to where feeds have been read that are further than the cursor says. */
  readonly #floors = new Map<Feed, number>();
  /** Pages that the next look needs, however soon they are forgotten elsewhere. */
  #pages = new Map<Feed, Page>();
  /** Feeds of which the client has missed what is not kept any more. */
  readonly #lost = new Set<Feed>();
  #listeners: readonly Listener[] = [];
  /** Live events of this turn. */
  #queue: BusEvent[] = [];
  #live = false;
  #begun = false;
  #closed = false;
  /** Bytes of ids since the cursor was last made shorter. */
  #spent = 0;
  #settling = false;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.started = this.#start();
    this.started.catch(() => this.close());
  }

  /** What its client has, as a cursor's text: with time it says so in fewer words. For now and then. */
  rest(): string | undefined {
    for (const { past } of this.#options.feeds) past.sweep();
    const complete = this.#live && this.#queue.length === 0 && this.#complete();
    if (complete) this.#cursor = settled(this.#cursor, complete);
    return placeOf(this.#cursor);
  }

  /** Lets events flow. */
  begin(): void {
    this.#begun = true;
    void this.#catchUp();
  }

  flush(): void {
    if (this.#closed || !this.#live) return;
    const queue = this.#queue.sort((a, b) => this.#order(a) - this.#order(b));
    this.#queue = [];
    const complete = this.#complete();
    for (const event of queue) {
      // A reader may have had enough with any of them.
      if (this.#closed) return;
      if (this.#emit(event, complete)) continue;
      this.#fallBack();
      return;
    }
    if (this.#cursor.beyond && this.#cursor.beyond.size > LONG_CURSOR) this.#shorten();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue = [];
    this.#pages.clear();
    for (const listener of this.#listeners) listener.leave();
    this.#options.over();
  }

  async #start(): Promise<FollowStart> {
    const { bus, feeds, since, resumed } = this.#options;
    await Promise.all(feeds.map((feed) => feed.live.started));
    // Asked after every feed has subscribed: what is stored later is heard by all of them.
    const present = await bus.horizon('global');
    this.#present = present.sequence;
    this.#cursor = present;
    let recovered = true;
    if (since) {
      recovered = since.epoch === present.epoch && furthestOf(since) <= present.sequence;
      this.#cursor = recovered ? since : { epoch: present.epoch, sequence: 0 };
      await Promise.all(
        feeds.map(async (feed) => {
          if (this.#stretchOf(feed)) return resumed('window');
          await this.#read(feed);
          resumed(this.#lost.has(feed) ? 'lost' : 'store');
        }),
      );
    }
    recovered &&= this.#lost.size === 0;
    return { place: placeOf(this.#cursor)!, recovered };
  }

  /** Hands over what was missed, then lets live events in. Never rejects. */
  async #catchUp(): Promise<void> {
    const { turn, reader } = this.#options;
    while (!this.#closed && !this.#live) {
      const wait = turn.breath() ?? reader.room();
      if (wait) {
        // What was read is read again by then, unless it can be had no more.
        for (const [feed] of this.#pages) if (!this.#lost.has(feed)) this.#pages.delete(feed);
        await wait;
        continue;
      }
      try {
        await this.#goOn();
      } catch (error) {
        if (this.#closed) return;
        const problem = asProblem(error);
        if (problem.code !== 'unavailable' || problem instanceof HistoryLost) {
          this.close();
          reader.broken(problem);
          return;
        }
        await sleep(PAUSE);
      }
    }
  }

  async #goOn(): Promise<void> {
    const { feeds } = this.#options;
    const stretches = new Map<Feed, Stretch>();
    const behind: Feed[] = [];
    for (const feed of feeds) {
      const stretch = this.#stretchOf(feed);
      if (stretch) stretches.set(feed, stretch);
      else behind.push(feed);
    }
    if (behind.length > 0) {
      await Promise.all(behind.map((feed) => this.#read(feed)));
      return;
    }
    const outcome = this.#handOver(stretches);
    if (outcome === 'done') this.#goLive();
    else if (outcome === 'unsettled') await this.#settle();
  }

  /** Hands over what is known in the order of the stream. */
  #handOver(stretches: ReadonlyMap<Feed, Stretch>): 'done' | 'more' | 'unsettled' {
    const { turn, reader } = this.#options;
    let upTo = Number.POSITIVE_INFINITY;
    let complete = Number.POSITIVE_INFINITY;
    for (const stretch of stretches.values()) {
      upTo = Math.min(upTo, stretch.upTo);
      complete = Math.min(complete, stretch.complete);
    }
    const { epoch } = this.#cursor;
    const events = [...stretches.values()]
      .flatMap((stretch) => stretch.events.filter(({ position }) => position.sequence <= upTo))
      .sort((a, b) => a.position.sequence - b.position.sequence);
    for (const event of events) {
      if (this.#closed || (turn.breath() ?? reader.room())) return 'more';
      if (!this.#emit(event, { epoch, sequence: complete })) return 'unsettled';
    }
    if (this.#closed) return 'more';
    if (this.#cursor.epoch === epoch) {
      this.#cursor = settled(this.#cursor, { epoch, sequence: Math.min(complete, upTo) });
    }
    if (upTo === Number.POSITIVE_INFINITY) return 'done';
    for (const [feed, stretch] of stretches) {
      if (stretch.upTo < Number.POSITIVE_INFINITY) this.#floors.set(feed, upTo);
    }
    return 'more';
  }

  #stretchOf(feed: Feed): Stretch | undefined {
    const from = this.#from(feed);
    const reached = reachedBy(from, feed.filter);
    const { window, live, past } = feed;
    const serves = reached >= this.#present || this.#options.windowServes(feed);
    if (serves && window.covers(from)) {
      const { complete } = live;
      return {
        events: window.after(from),
        upTo: Number.POSITIVE_INFINITY,
        complete: complete?.epoch === from.epoch ? complete.sequence : from.sequence,
      };
    }
    const held = this.#pages.get(feed);
    const page = held && held.upTo > reached ? held : past.page(from.epoch, reached);
    if (!page) return undefined;
    const events = page.events.filter(
      ({ position, path }) => position.sequence > reached && isBeyond(position, this.#cursor, path),
    );
    return { events, upTo: page.upTo, complete: page.upTo };
  }

  /** The cursor as it is for one feed. */
  #from(feed: Feed): Cursor {
    const floor = this.#floors.get(feed);
    const cursor = this.#cursor;
    if (floor === undefined || floor <= reachedBy(cursor, feed.filter)) return cursor;
    return { ...cursor, beyond: new Map(cursor.beyond).set(feed.filter, floor) };
  }

  /** Reads a feed's next page. */
  async #read(feed: Feed): Promise<void> {
    const { bus, audience, feeds } = this.#options;
    await this.#readings.enter();
    try {
      if (this.#closed) return;
      const { epoch } = this.#cursor;
      const reached = reachedBy(this.#from(feed), feed.filter);
      const size = Math.max(PAGES_COST / feeds.length, LEAST_PAGE);
      const page = await feed.past.read(epoch, reached, size);
      if (page) {
        this.#lost.delete(feed);
        this.#pages.set(feed, page);
        // Nothing follows, and yet the window does not reach back to there: it is of another stream, silent since.
        if (page.upTo <= reached) await feed.verify({ epoch, sequence: page.upTo });
        return;
      }
      if (this.#begun) throw new HistoryLost();
      this.#lost.add(feed);
      const until = await bus.horizon('global');
      const interest = { audience, scope: 'global', filter: feed.filter } as const;
      const history = await bus.history(interest, { epoch, sequence: reached }, until);
      try {
        this.#pages.set(feed, await readPage(history, { epoch, sequence: reached }, until, size));
      } finally {
        history.close();
      }
    } finally {
      this.#readings.leave();
    }
  }

  /** Once: where a stream has to look back later, it goes on to hear what is stored nowhere. */
  #goLive(): void {
    const { feeds } = this.#options;
    this.#live = true;
    this.#pages.clear();
    if (this.#listeners.length === 0) {
      this.#listeners = feeds.map((feed, i) => {
        const listener = feed.watch((event) => this.#hear(event, i));
        listener.start(this.#from(feed));
        return listener;
      });
    }
    this.#floors.clear();
  }

  #fallBack(): void {
    this.#live = false;
    this.#queue = [];
    void this.#catchUp();
  }

  #hear(event: FeedEvent, feed: number): void {
    const { turn } = this.#options;
    if (!('position' in event)) this.#hearEphemeral(event, feed);
    else if (this.#live && this.#queue.push(event) === 1) turn.batch(this);
    else turn.joined();
  }

  /** Of several filters that take it, the first one does: it has no place by which a repeat could be told. */
  #hearEphemeral(event: EphemeralEvent, feed: number): void {
    const { feeds, mayReceive, reader } = this.#options;
    const isTaken = feeds.slice(0, feed).some(({ filter }) => matchesFilter(filter, event.path));
    if (!isTaken && mayReceive(event.topic, event.path)) reader.take(event, undefined);
  }

  /**
   * Hands one event over, unless its client has it.
   * @param complete up to where nothing older is missing, beside events that are handed over before it
   * @returns false where a cursor cannot hold what its client would have
   */
  #emit(event: BusEvent, complete: Position | undefined): boolean {
    const { mayReceive, reader } = this.#options;
    const { topic, path, position } = event;
    if (!isBeyond(position, this.#cursor, path) || !mayReceive(topic, path)) return true;
    const { epoch, sequence } = position;
    const base = { epoch, sequence: complete?.epoch === epoch ? Math.min(complete.sequence, sequence) : 0 };
    const next = settled(taken(settled(this.#cursor, base), event), base);
    const place = placeOf(next);
    if (place === undefined) return false;
    this.#cursor = next;
    this.#spent += place.length;
    reader.take(event, place);
    return true;
  }

  /** What is left of a stream that was made anew comes before the new one. */
  #order({ position }: BusEvent): number {
    return position.epoch === this.#cursor.epoch ? position.sequence : Number.MAX_SAFE_INTEGER;
  }

  /** Up to where everything of all feeds was heard; undefined where they do not agree about the stream. */
  #complete(): Position | undefined {
    let least: Position | undefined;
    for (const { live } of this.#options.feeds) {
      const { complete } = live;
      if (!complete || complete.epoch !== (least ?? complete).epoch) return undefined;
      if (!least || complete.sequence < least.sequence) least = complete;
    }
    return least;
  }

  /** Asks in the background how much of the cursor can be said in one number, when ids have cost as much. */
  #shorten(): void {
    if (this.#settling || this.#spent < PRICE * this.#options.feeds.length) return;
    this.#settling = true;
    this.#settle()
      .catch(() => sleep(PAUSE))
      .finally(() => {
        this.#settling = false;
      });
  }

  async #settle(): Promise<void> {
    const { bus, feeds } = this.#options;
    const upTo = await bus.horizon('global');
    await Promise.all(feeds.map((feed) => feed.verify(upTo)));
    this.#spent = 0;
  }
}

/** Retention has overtaken a client that read too slowly: only it can decide what that means. */
class HistoryLost extends ProblemError {
  constructor() {
    super('unavailable', 'Events that were still missing are not kept any more');
  }
}
