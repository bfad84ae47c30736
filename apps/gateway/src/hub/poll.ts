/**
 * One question for the next event (docs/protocols/tryton.md): the oldest after a cursor on any of several filters,
 * at once where there is one, else as soon as it comes. Feeds' windows answer it; what lies before them is read in
 * pages (past.ts), once for many polls.
 */
import type { BusEvent, EphemeralEvent } from '@posthorn/bus';
import type { Bus } from '@posthorn/bus/platform';
import { type Cursor, furthestOf, reachedBy, type Topic } from '@posthorn/contracts';
import type { Feed, FeedEvent, Waiter } from './feed.js';
import type { Page } from './past.js';
import { placeOf, settled, taken } from './progress.js';
import type { Flushable, Turn } from './turn.js';

export interface PollOptions {
  readonly bus: Pick<Bus, 'horizon' | 'recently'>;
  readonly turn: Turn;
  readonly feeds: readonly Feed[];
  readonly since: Cursor | undefined;
  readonly recent: number;
  readonly mayReceive: (topic: Topic) => boolean;
  /** Called once, when the poll has ended. */
  readonly over: () => void;
}

/** What a poll came to. */
export interface PollAnswer {
  /** Undefined where nothing came before it was ended. */
  readonly event: FeedEvent | undefined;
  /** What its client has with that, as a cursor's text; undefined where nothing came. */
  readonly place: string | undefined;
  /** False where the cursor that it came with was none of this stream, or reaches too far back. */
  readonly recovered: boolean;
}

/** The next event of a feed, if there is one, and the place up to which nothing else is missing. */
interface Next {
  readonly event?: BusEvent;
  readonly complete: number;
}

/** What the pages of one poll may cost together, in bytes, and the least and the most of each. */
const PAGES_COST = 2_097_152;
const LEAST_PAGE = 16_384;
const MOST_PAGE = 262_144;

export class Poll implements Flushable, Waiter {
  /** @throws ProblemError `unavailable` */
  readonly answer: Promise<PollAnswer>;
  readonly #options: PollOptions;
  #resolve!: (answer: PollAnswer) => void;
  #reject!: (error: unknown) => void;
  #cursor: Cursor | undefined;
  /** Pages that the next look needs, however soon they are forgotten elsewhere. */
  readonly #pages = new Map<Feed, Page>();
  #recovered = true;
  #woken = false;
  #waiting = false;
  #over = false;

  constructor(options: PollOptions) {
    this.#options = options;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#begin().catch((error) => this.#fail(error));
  }

  /** Ends it without an event: the client's patience is over, or the client is gone. */
  end(): void {
    this.#finish(undefined, undefined);
  }

  wake(): void {
    if (this.#woken || this.#over) return;
    this.#woken = true;
    // With all that this turn still brings: the oldest of it is the next.
    this.#options.turn.batch(this);
  }

  wakeWith(event: EphemeralEvent): void {
    if (this.#over || !this.#options.mayReceive(event.topic)) return;
    const place = placeOf(this.#cursor!);
    // It is lost to a client that cannot be told where it stands.
    if (place !== undefined) this.#finish(event, place);
  }

  flush(): void {
    this.#woken = false;
    if (!this.#over) this.#look().catch((error) => this.#fail(error));
  }

  async #begin(): Promise<void> {
    const { feeds, bus, since, recent } = this.#options;
    await Promise.all(feeds.map((feed) => feed.live.started));
    this.#cursor = since && (await this.#isOfThisStream(since)) ? since : undefined;
    if (!this.#cursor) {
      this.#recovered = since === undefined;
      this.#cursor = await bus.recently('global', recent);
    }
    if (!this.#over) await this.#look();
  }

  async #isOfThisStream(since: Cursor): Promise<boolean> {
    const { feeds, bus } = this.#options;
    const furthest = furthestOf(since);
    const isReached = feeds.some(({ live }) => {
      const { complete } = live;
      return complete?.epoch === since.epoch && complete.sequence >= furthest;
    });
    if (isReached) return true;
    const end = await bus.horizon('global');
    return end.epoch === since.epoch && furthest <= end.sequence;
  }

  /** Answers with the next event, or waits for it. */
  async #look(): Promise<void> {
    for (;;) {
      const behind = this.#tryAnswer();
      if (behind === 'unsettled') {
        await this.#settle();
        continue;
      }
      if (behind.length === 0 || this.#over) return;
      const kept = await Promise.all(behind.map(([feed, reached]) => this.#read(feed, reached)));
      if (this.#over) return;
      if (kept.includes(false)) await this.#restart();
    }
  }

  /** @returns false where what follows is not kept any more */
  async #read(feed: Feed, reached: number): Promise<boolean> {
    const { epoch } = this.#cursor!;
    const size = Math.min(Math.max(PAGES_COST / this.#options.feeds.length, LEAST_PAGE), MOST_PAGE);
    const page = await feed.past.read(epoch, reached, size);
    if (!page) return false;
    if (!this.#over) this.#pages.set(feed, page);
    // Nothing follows, and yet the window does not reach back to there: it is of another stream, and silent since.
    if (page.upTo <= reached) await feed.verify({ epoch, sequence: page.upTo });
    return true;
  }

  /** Events that the client has not seen are not kept any more; where recent ones are not either, the end is left. */
  async #restart(): Promise<void> {
    const { bus, recent } = this.#options;
    this.#cursor = await (this.#recovered ? bus.recently('global', recent) : bus.horizon('global'));
    this.#recovered = false;
  }

  /** More topics are beyond what is complete for all than a cursor holds: the store is asked how far that is. */
  async #settle(): Promise<void> {
    const { feeds, bus } = this.#options;
    const upTo = await bus.horizon('global');
    await Promise.all(feeds.map((feed) => feed.verify(upTo)));
  }

  /** @returns feeds whose next event has to be read first, with the places after which; nothing to do: none */
  #tryAnswer(): [feed: Feed, reached: number][] | 'unsettled' {
    const { feeds } = this.#options;
    const behind: [Feed, number][] = [];
    let next: BusEvent | undefined;
    let complete = Number.POSITIVE_INFINITY;
    for (const feed of feeds) {
      const found = this.#nextOf(feed);
      if (typeof found === 'number') {
        behind.push([feed, found]);
        continue;
      }
      const { event } = found;
      complete = Math.min(complete, found.complete);
      if (event && (!next || event.position.sequence < next.position.sequence)) next = event;
    }
    if (behind.length > 0) return behind;
    const cursor = settled(this.#cursor!, { epoch: this.#cursor!.epoch, sequence: complete });
    this.#cursor = cursor;
    if (next) {
      const place = placeOf(taken(cursor, next));
      if (place === undefined) return 'unsettled';
      this.#finish(next, place);
    } else if (!this.#waiting) {
      this.#waiting = true;
      this.#pages.clear();
      for (const feed of feeds) feed.wait(this);
    }
    return behind;
  }

  /** What a feed has next; a number is a place after which its past has to be read. */
  #nextOf(feed: Feed): Next | number {
    const since = this.#cursor!;
    let reached = reachedBy(since, feed.filter);
    for (;;) {
      const from = reached > since.sequence ? raised(since, reached, feed.filter) : since;
      if (feed.window.covers(from)) {
        const complete = feed.live.complete?.sequence ?? since.sequence;
        const event = this.#mine(feed, from);
        if (!event) return { complete };
        // Of several topics, an older event may come later: what is before this one is not complete by that.
        const before = event.position.sequence - 1;
        return { event, complete: feed.isOneTopic ? before : Math.min(complete, before) };
      }
      const glance = feed.past.glance(since, reached, this.#pages.get(feed));
      if (!glance) return reached;
      if ('event' in glance && this.#options.mayReceive(glance.event.topic)) {
        return { event: glance.event, complete: glance.event.position.sequence - 1 };
      }
      reached = 'event' in glance ? glance.event.position.sequence : glance.upTo;
    }
  }

  /** The first event in a feed's window that the client may have. */
  #mine({ window }: Feed, since: Cursor): BusEvent | undefined {
    const first = window.first(since);
    if (!first || this.#options.mayReceive(first.topic)) return first;
    return window.after(since).find(({ topic }) => this.#options.mayReceive(topic));
  }

  #finish(event: FeedEvent | undefined, place: string | undefined): void {
    if (this.#over) return;
    this.#close();
    this.#resolve({ event, place, recovered: this.#recovered });
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#close();
    this.#reject(error);
  }

  #close(): void {
    const { feeds, over } = this.#options;
    this.#over = true;
    this.#pages.clear();
    if (this.#waiting) for (const feed of feeds) feed.forget(this);
    over();
  }
}

/** A cursor that has a filter's topic up to a place; what a pattern takes is judged by the cursor alone. */
function raised(cursor: Cursor, reached: number, filter: string): Cursor {
  const beyond = new Map(cursor.beyond);
  beyond.set(filter, reached);
  return { epoch: cursor.epoch, sequence: cursor.sequence, beyond };
}
