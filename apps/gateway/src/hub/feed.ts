/** One filter of one audience: a live subscription of the bus, and everybody here who listens to it. */
import type { BusEvent, EphemeralEvent } from '@posthorn/bus';
import type { LiveSubscription } from '@posthorn/bus/platform';
import { type Cursor, hasWildcard, isBeyond, type Position } from '@posthorn/contracts';
import type { Tally } from '@posthorn/service';
import type { Sink } from './outbox.js';
import type { Past } from './past.js';
import type { Flushable, Turn } from './turn.js';
import { Window, type WindowBudget } from './window.js';

/** What a feed hears: stored events, which have a position, and ephemeral ones. */
export type FeedEvent = BusEvent | EphemeralEvent;

/** How an event becomes bytes for a kind of listener; listeners with the same `key` share them. */
export interface Encoding {
  readonly key: string;
  encode(event: FeedEvent): Uint8Array;
}

/** Takes events one by one: subscribers of patterns, who have to be asked about each. */
export type Watcher = (event: FeedEvent) => void;

/** A listener's place in a feed. Until it {@link start}s it gets nothing by itself. */
export interface Listener {
  /** Hands over an event from the store. */
  deliver(event: BusEvent): void;
  /**
   * Hands over what the feed's window holds beyond a cursor, and lets events flow: none up to the cursor comes,
   * however late. False where the window does not reach back to it; then nothing has happened.
   */
  start(since: Cursor): boolean;
  /** Hands over what waits for the end of the turn: for a frame that has to come behind it. */
  flush(): void;
  leave(): void;
}

/** Waits for one event, whichever feed it comes on: a poll. */
export interface Waiter {
  /** Something has come. Called in the middle of a turn, perhaps more than once. */
  wake(): void;
  /** Something has come that is stored nowhere: it cannot be asked for later. */
  wakeWith(event: EphemeralEvent): void;
}

export interface FeedOptions {
  /** What the hub knows it by. */
  readonly key: string;
  readonly filter: string;
  readonly turn: Turn;
  readonly budget: WindowBudget;
  readonly past: Past;
  /** Counts events handed to connections, one for each that gets it. */
  readonly delivered: Tally;
  /** Called when the last listener has left. */
  readonly empty: () => void;
}

export class Feed {
  readonly key: string;
  readonly filter: string;
  readonly window: Window;
  readonly past: Past;
  readonly #turn: Turn;
  readonly #delivered: Tally;
  readonly #groups = new Map<string, Group>();
  readonly #watchers = new Set<WatcherListener>();
  readonly #waiters = new Set<Waiter>();
  /** Polls that look at it now. */
  #holds = 0;
  readonly #empty: () => void;
  /** Set by the hub as soon as the feed listens. */
  live!: LiveSubscription;
  ephemeral: { close(): void } | undefined;

  constructor({ key, filter, turn, budget, past, delivered, empty }: FeedOptions) {
    this.key = key;
    this.filter = filter;
    this.window = new Window(filter, budget);
    this.past = past;
    this.#turn = turn;
    this.#delivered = delivered;
    this.#empty = empty;
  }

  /** Takes an event of the bus, in order. */
  take(event: BusEvent): void {
    this.window.push(event);
    for (const group of this.#groups.values()) group.take(event);
    for (const watcher of this.#watchers) watcher.take(event);
    for (const waiter of this.#waiters) waiter.wake();
    this.#turn.handedOver(event.time);
  }

  /** Whether all of its events are one topic's, and so in the order of the stream. */
  get isOneTopic(): boolean {
    return !hasWildcard(this.filter);
  }

  /** How many connections and polls an event of now is for. */
  get listeners(): number {
    let count = this.#watchers.size + this.#waiters.size;
    for (const group of this.#groups.values()) count += group.size;
    return count;
  }

  /** Whether anybody here listens. */
  get isUsed(): boolean {
    return this.#groups.size > 0 || this.#watchers.size > 0 || this.#holds > 0;
  }

  /** Keeps it for a poll, until {@link release}. */
  hold(): void {
    this.#holds++;
  }

  release(): void {
    this.#holds--;
    this.#checkEmpty();
  }

  /** Wakes a waiter with each event, until it is forgotten. */
  wait(waiter: Waiter): void {
    this.#waiters.add(waiter);
  }

  forget(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  /**
   * Resolves once everything up to a place was passed on.
   * @throws ProblemError `unavailable`
   */
  async verify(upTo: Position): Promise<void> {
    await this.live.verify(upTo);
    this.window.reach(upTo);
  }

  /** Takes an event that is stored nowhere: whoever is not live yet misses it. */
  takeEphemeral(event: EphemeralEvent): void {
    for (const group of this.#groups.values()) group.takeEphemeral(event);
    for (const watcher of this.#watchers) watcher.takeEphemeral(event);
    for (const waiter of this.#waiters) waiter.wakeWith(event);
    this.#turn.handedOver(event.time);
  }

  /** Ends it. */
  close(): void {
    this.live.close();
    this.ephemeral?.close();
    this.window.close();
    this.past.close();
  }

  /** Adds a connection that gets every event of the feed, which is one topic's. */
  join(outbox: Sink, encoding: Encoding): Listener {
    let group = this.#groups.get(encoding.key);
    if (!group) {
      group = new Group(this.#turn, this.window, encoding, this.#delivered);
      this.#groups.set(encoding.key, group);
    }
    return group.join(outbox, () => {
      if (group.isEmpty && this.#groups.get(encoding.key) === group) this.#groups.delete(encoding.key);
      this.#checkEmpty();
    });
  }

  /** Adds somebody who decides about each event. */
  watch(watcher: Watcher): Listener {
    const listener = new WatcherListener(this.window, watcher, () => {
      this.#watchers.delete(listener);
      this.#checkEmpty();
    });
    this.#watchers.add(listener);
    return listener;
  }

  #checkEmpty(): void {
    if (!this.isUsed) this.#empty();
  }
}

/** A connection that has not seen an event after its beginning yet. */
interface Newcomer {
  readonly outbox: Sink;
  readonly since: Cursor;
}

/** Connections that get the same bytes: each event is encoded once. */
class Group {
  readonly #turn: Turn;
  readonly #window: Window;
  readonly #encoding: Encoding;
  readonly #delivered: Tally;
  readonly #rows: Row[] = [];
  readonly #newcomers = new Set<Newcomer>();
  /** The row of everybody who is a member. */
  readonly #members = new Map<Sink, Row>();
  /** Everybody who joined, whether started or not. */
  #joined = 0;

  constructor(turn: Turn, window: Window, encoding: Encoding, delivered: Tally) {
    this.#turn = turn;
    this.#window = window;
    this.#encoding = encoding;
    this.#delivered = delivered;
  }

  get isEmpty(): boolean {
    return this.#joined === 0;
  }

  get size(): number {
    return this.#joined;
  }

  take(event: BusEvent): void {
    for (const newcomer of this.#newcomers) {
      if (!isBeyond(event.position, newcomer.since, event.path)) continue;
      this.#newcomers.delete(newcomer);
      this.#admit(newcomer.outbox);
    }
    if (this.#rows.length > 0) this.#add(this.#encoding.encode(event));
  }

  takeEphemeral(event: EphemeralEvent): void {
    const bytes = this.#encoding.encode(event);
    for (const { outbox } of this.#newcomers) this.#send(outbox, bytes);
    this.#add(bytes);
  }

  join(outbox: Sink, left: () => void): Listener {
    let newcomer: Newcomer | undefined;
    this.#joined++;
    return {
      deliver: (event) => this.#send(outbox, this.#encoding.encode(event)),
      start: (since) => {
        if (!this.#window.covers(since)) return false;
        const due = this.#window.after(since);
        if (due.length === 0) {
          newcomer = { outbox, since };
          this.#newcomers.add(newcomer);
        } else {
          this.#admit(outbox);
          for (const event of due) this.#send(outbox, this.#encoding.encode(event));
        }
        return true;
      },
      flush: () => this.#members.get(outbox)?.flush(),
      leave: () => {
        this.#dismiss(outbox);
        if (newcomer) this.#newcomers.delete(newcomer);
        this.#joined--;
        left();
      },
    };
  }

  #send(outbox: Sink, bytes: Uint8Array): void {
    this.#delivered.inc();
    outbox.send(bytes);
  }

  #add(bytes: Uint8Array): void {
    for (const row of this.#rows) row.add(bytes);
  }

  #admit(outbox: Sink): void {
    let row = this.#rows.at(-1);
    if (!row || row.isFull) {
      row = new Row(this.#turn, this.#delivered);
      this.#rows.push(row);
    }
    row.admit(outbox);
    this.#members.set(outbox, row);
  }

  #dismiss(outbox: Sink): void {
    const row = this.#members.get(outbox);
    if (!row) return;
    this.#members.delete(outbox);
    row.dismiss(outbox);
    if (row.isEmpty) this.#rows.splice(this.#rows.indexOf(row), 1);
  }
}

/** As many members of a group as are handed a batch in one go. */
const MAX_ROW = 4_096;

/** Members of a group, who get a turn's events joined once. */
class Row implements Flushable {
  readonly #turn: Turn;
  readonly #delivered: Tally;
  readonly #members = new Set<Sink>();
  #batch: Uint8Array[] = [];

  constructor(turn: Turn, delivered: Tally) {
    this.#turn = turn;
    this.#delivered = delivered;
  }

  get isEmpty(): boolean {
    return this.#members.size === 0;
  }

  get isFull(): boolean {
    return this.#members.size >= MAX_ROW;
  }

  add(bytes: Uint8Array): void {
    if (this.#batch.push(bytes) === 1) this.#turn.batch(this);
    else this.#turn.joined();
  }

  /** What this turn has batched so far belongs to the others alone. */
  admit(outbox: Sink): void {
    this.flush();
    this.#members.add(outbox);
  }

  /** Events that came before the end of a subscription are still delivered. */
  dismiss(outbox: Sink): void {
    this.flush();
    this.#members.delete(outbox);
  }

  flush(): void {
    if (this.#batch.length === 0) return;
    this.#delivered.inc(this.#batch.length * this.#members.size);
    const bytes = this.#batch.length === 1 ? this.#batch[0]! : Buffer.concat(this.#batch);
    this.#batch = [];
    for (const member of this.#members) member.send(bytes);
  }
}

class WatcherListener implements Listener {
  readonly #window: Window;
  readonly #watcher: Watcher;
  readonly #left: () => void;
  #since: Cursor | undefined;

  constructor(window: Window, watcher: Watcher, left: () => void) {
    this.#window = window;
    this.#watcher = watcher;
    this.#left = left;
  }

  deliver(event: BusEvent): void {
    this.#watcher(event);
  }

  take(event: BusEvent): void {
    if (this.#since && isBeyond(event.position, this.#since, event.path)) this.#watcher(event);
  }

  takeEphemeral(event: EphemeralEvent): void {
    if (this.#since) this.#watcher(event);
  }

  start(since: Cursor): boolean {
    if (!this.#window.covers(since)) return false;
    this.#since = since;
    for (const event of this.#window.after(since)) this.#watcher(event);
    return true;
  }

  /** Events are handed over as they come. */
  flush(): void {}

  leave(): void {
    this.#left();
  }
}
