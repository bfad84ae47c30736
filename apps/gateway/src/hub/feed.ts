/** One filter of one audience: a live subscription of the bus, and everybody here who listens to it. */
import type { BusEvent, LiveSubscription } from '@posthorn/bus';
import type { Position } from '@posthorn/contracts';
import type { Outbox } from './outbox.js';
import type { Flushable, Turn } from './turn.js';

/** How an event becomes bytes for a kind of listener; listeners with the same `key` share them. */
export interface Encoding {
  readonly key: string;
  encode(event: BusEvent): Uint8Array;
}

/** Takes events one by one: subscribers of patterns, who have to be asked about each. */
export type Watcher = (event: BusEvent) => void;

/** A listener's place in a feed. Until {@link start} events are held back. */
export interface Listener {
  /** Lets events flow, beginning with those held that lie after `position`. None up to it comes, however late. */
  start(position: Position): void;
  leave(): void;
}

export class Feed {
  readonly #turn: Turn;
  readonly #groups = new Map<string, Group>();
  readonly #watchers = new Set<WatcherListener>();
  readonly #empty: () => void;
  /** Set by the hub as soon as the feed listens. */
  live!: LiveSubscription;

  /** @param empty called when the last listener has left */
  constructor(turn: Turn, empty: () => void) {
    this.#turn = turn;
    this.#empty = empty;
  }

  /** Takes an event of the bus, in order. */
  take(event: BusEvent): void {
    for (const group of this.#groups.values()) group.take(event);
    for (const watcher of this.#watchers) watcher.take(event);
  }

  /** Adds a connection that gets every event of the feed. */
  join(outbox: Outbox, encoding: Encoding): Listener {
    let group = this.#groups.get(encoding.key);
    if (!group) {
      group = new Group(this.#turn, encoding);
      this.#groups.set(encoding.key, group);
    }
    return group.join(outbox, () => {
      if (group.size === 0 && this.#groups.get(encoding.key) === group) this.#groups.delete(encoding.key);
      this.#checkEmpty();
    });
  }

  /** Adds somebody who decides about each event. */
  watch(watcher: Watcher): Listener {
    const listener = new WatcherListener(watcher, () => {
      this.#watchers.delete(listener);
      this.#checkEmpty();
    });
    this.#watchers.add(listener);
    return listener;
  }

  #checkEmpty(): void {
    if (this.#groups.size === 0 && this.#watchers.size === 0) this.#empty();
  }
}

/** Connections that get the same bytes: each event is encoded once, a turn's events are joined once. */
class Group implements Flushable {
  readonly #turn: Turn;
  readonly #encoding: Encoding;
  readonly #members = new Set<Outbox>();
  readonly #newcomers = new Set<Newcomer>();
  #batch: Uint8Array[] = [];

  constructor(turn: Turn, encoding: Encoding) {
    this.#turn = turn;
    this.#encoding = encoding;
  }

  get size(): number {
    return this.#members.size + this.#newcomers.size;
  }

  take(event: BusEvent): void {
    const bytes = this.#encoding.encode(event);
    for (const newcomer of this.#newcomers) {
      if (newcomer.start === undefined) newcomer.held.push({ position: event.position, bytes });
      else if (isAfter(event.position, newcomer.start)) this.#admit(newcomer);
    }
    if (this.#members.size > 0 && this.#batch.push(bytes) === 1) this.#turn.batch(this);
  }

  join(outbox: Outbox, left: () => void): Listener {
    const newcomer: Newcomer = { outbox, start: undefined, held: [] };
    this.#newcomers.add(newcomer);
    return {
      start: (position) => {
        newcomer.start = position;
        const due = newcomer.held.filter((event) => isAfter(event.position, position));
        newcomer.held.length = 0;
        if (due.length === 0) return;
        this.#admit(newcomer);
        for (const { bytes } of due) outbox.send(bytes);
      },
      leave: () => {
        // Events that came before the end of the subscription are still delivered.
        if (this.#members.has(outbox)) this.flush();
        this.#members.delete(outbox);
        this.#newcomers.delete(newcomer);
        left();
      },
    };
  }

  flush(): void {
    if (this.#batch.length === 0) return;
    const bytes = this.#batch.length === 1 ? this.#batch[0]! : Buffer.concat(this.#batch);
    this.#batch = [];
    for (const member of this.#members) member.send(bytes);
  }

  /** A newcomer becomes a member: what this turn has batched so far belongs to the others alone. */
  #admit(newcomer: Newcomer): void {
    this.flush();
    this.#newcomers.delete(newcomer);
    this.#members.add(newcomer.outbox);
  }
}

/** A connection that has not seen an event after its beginning yet. */
interface Newcomer {
  readonly outbox: Outbox;
  start: Position | undefined;
  readonly held: { readonly position: Position; readonly bytes: Uint8Array }[];
}

class WatcherListener implements Listener {
  readonly #watcher: Watcher;
  readonly #left: () => void;
  #start: Position | undefined;
  #held: BusEvent[] = [];

  constructor(watcher: Watcher, left: () => void) {
    this.#watcher = watcher;
    this.#left = left;
  }

  take(event: BusEvent): void {
    if (this.#start === undefined) this.#held.push(event);
    else if (isAfter(event.position, this.#start)) this.#watcher(event);
  }

  start(position: Position): void {
    const held = this.#held;
    this.#start = position;
    this.#held = [];
    for (const event of held) this.take(event);
  }

  leave(): void {
    this.#left();
  }
}

/** Whether an event lies after the beginning of a subscription: a stream made anew begins after everything. */
export function isAfter(event: Position, start: Position): boolean {
  return event.epoch !== start.epoch || event.sequence > start.sequence;
}
