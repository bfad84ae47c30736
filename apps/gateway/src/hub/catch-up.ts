/**
 * One listener on its way to the present: what it missed comes from the feed's window where that reaches back,
 * else from the store, up to a horizon that the stream's leader gives; then live events
 * (docs/protocols/events.md, "Order, gaps, positions"). Nothing is held for it meanwhile: what went by while it
 * read is in the window, or read from the store in another round.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bus, History } from '@posthorn/bus/platform';
import {
  asProblem,
  type Cursor,
  furthestOf,
  type Position,
  ProblemError,
  reachedBy,
} from '@posthorn/contracts';
import type { Feed, Listener } from './feed.js';

/** From the feed's window, from the store, or not without a loss. */
export type ResumeOutcome = 'window' | 'store' | 'lost';

export interface CatchUpOptions {
  readonly bus: Pick<Bus, 'history' | 'horizon'>;
  readonly audience: string;
  readonly feed: Feed;
  readonly listener: Listener;
  /** Whether what the feed's window holds is all that a client may ask for. */
  readonly windowServes: () => boolean;
  /** Says when the peer can take more; undefined: now. */
  readonly room: () => Promise<void> | undefined;
  /** Those of the connection. */
  readonly readings: Readings;
  /** Called with how a client's cursor could be served. */
  readonly resumed: (outcome: ResumeOutcome) => void;
  /** Called once where what is missing cannot be had any more: the listener gets nothing after that. */
  readonly broken: (error: ProblemError) => void;
}

/** The pause before an event store that did not answer is asked again, in milliseconds. */
const PAUSE = 1_000;
/** How long a reading is kept for a peer that takes nothing, in milliseconds: it holds pages of events. */
const GRACE = 1_000;
/** How much one connection may read from the store at the same time. */
const AT_ONCE = 4;

/** The readings of one connection: what has begun holds pages, what waits for its turn holds nothing. */
export class Readings {
  #free = AT_ONCE;
  readonly #waiting: (() => void)[] = [];

  async enter(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((turn) => this.#waiting.push(turn));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }
}

/** Where a listener begins. */
export interface Beginning {
  readonly position: Cursor;
  /** Whether everything after the cursor that was asked for is still kept. */
  readonly recovered: boolean;
}

interface Reading {
  readonly history: History;
  readonly until: Position;
}

export class CatchUp {
  readonly #options: CatchUpOptions;
  /** Up to here everything was handed over. */
  #reached!: Cursor;
  /** What is read now. */
  #reading: Reading | undefined;
  #done = false;
  #closed = false;

  constructor(options: CatchUpOptions) {
    this.#options = options;
  }

  /** Whether events flow live. */
  get done(): boolean {
    return this.#done;
  }

  /** Begins at a place that the leader gave after the feed had started. */
  beginAt(horizon: Position): void {
    this.#reached = horizon;
  }

  /**
   * Begins after a cursor from a client. Resolves with where that is, and whether everything after it can
   * still be had.
   * @param horizon as of {@link beginAt}
   * @throws ProblemError `unavailable`
   */
  async resume(since: Cursor, horizon: Position): Promise<Beginning> {
    const { feed, windowServes, resumed } = this.#options;
    const furthest = furthestOf(since);
    if (furthest <= horizon.sequence && feed.window.covers(since) && windowServes()) {
      this.#reached = since;
      resumed('window');
      return { position: since, recovered: true };
    }
    this.#reading = await this.#open(since, horizon);
    const { recovered, after } = this.#reading.history;
    resumed(recovered ? 'store' : 'lost');
    if (recovered) {
      this.#reached = since;
      return { position: since, recovered };
    }
    // What the client has beyond its cursor still counts where that is of this stream.
    const isOfThisStream = since.epoch === after.epoch && furthest <= horizon.sequence;
    const comparable = isOfThisStream && reachedBy(since, feed.filter) <= after.sequence;
    this.#reached = comparable ? advanced(since, after.sequence) : after;
    return { position: after, recovered };
  }

  /** Hands over what is missing, then lets events flow. Called once, after one of the others. */
  run(): void {
    if (this.#reading || !this.#start()) void this.#read();
  }

  /** Queues what waits for the end of the turn. */
  flush(): void {
    this.#options.listener.flush();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reading?.history.close();
    this.#options.listener.leave();
  }

  #start(): boolean {
    this.#done = this.#options.listener.start(this.#reached);
    return this.#done;
  }

  /** Never rejects. */
  async #read(): Promise<void> {
    const { readings, room } = this.#options;
    do {
      let brokenOff = false;
      await readings.enter();
      try {
        if (!this.#closed) brokenOff = !(await this.#round());
      } catch (error) {
        if (this.#closed) return;
        const problem = asProblem(error);
        if (problem.code !== 'unavailable' || problem instanceof HistoryLost) {
          this.close();
          this.#options.broken(problem);
          return;
        }
        await sleep(PAUSE);
      } finally {
        readings.leave();
      }
      if (brokenOff) for (let wait = room(); wait && !this.#closed; wait = room()) await wait;
      if (this.#closed) return;
    } while (!this.#start());
  }

  /**
   * Reads up to where the stream stands now. What was handed over counts even where the reading breaks off.
   * Resolves with false where that was because the peer takes nothing: what is left is read again once it does.
   */
  async #round(): Promise<boolean> {
    const { feed, listener, room } = this.#options;
    const { history, until } = this.#reading ?? (await this.#readOn());
    try {
      for await (const event of history) {
        const wait = room();
        if (wait && !(await this.#roomSoon(wait))) return false;
        if (this.#closed) return true;
        listener.deliver(event);
        this.#reached = advanced(this.#reached, event.position.sequence);
      }
      this.#reached = advanced(this.#reached, until.sequence);
      // A quiet feed hears of a stream that was made anew by this: else its window would never reach back.
      if (!feed.window.covers(this.#reached)) await feed.verify(until);
      return true;
    } finally {
      this.#reading = undefined;
    }
  }

  /** Whether the peer takes more before long. */
  async #roomSoon(first: Promise<void>): Promise<boolean> {
    const tooLong = new AbortController();
    const end = sleep(GRACE, true, { signal: tooLong.signal }).catch(() => true);
    try {
      for (let wait: Promise<void> | undefined = first; wait && !this.#closed; wait = this.#options.room()) {
        if (await Promise.race([wait, end])) return false;
      }
      return true;
    } finally {
      tooLong.abort();
    }
  }

  async #readOn(): Promise<Reading> {
    const reading = await this.#open(this.#reached, await this.#options.bus.horizon('global'));
    if (!reading.history.recovered) throw new HistoryLost();
    this.#reading = reading;
    return reading;
  }

  async #open(since: Cursor, until: Position): Promise<Reading> {
    const { bus, audience, feed } = this.#options;
    const interest = { audience, scope: 'global', filter: feed.filter } as const;
    const history = await bus.history(interest, since, until);
    if (this.#closed) history.close();
    return { history, until };
  }
}

/** Retention has overtaken a listener that read too slowly: only its client can decide what that means. */
class HistoryLost extends ProblemError {
  constructor() {
    super('unavailable', 'Events that were still missing are not kept any more: subscribe again');
  }
}

/** A cursor whose every topic has reached a sequence. */
function advanced(cursor: Cursor, sequence: number): Cursor {
  const position = { epoch: cursor.epoch, sequence: Math.max(sequence, cursor.sequence) };
  if (!cursor.beyond) return position;
  const beyond = [...cursor.beyond].filter(([, reached]) => reached > sequence);
  return beyond.length > 0 ? { ...position, beyond: new Map(beyond) } : position;
}
