/**
 * One reading of history for all who resume the same filter from nearby places at about the same time: after
 * a restart of a gateway thousands of clients ask for the same few seconds.
 */
import { ProblemError } from '@posthorn/contracts';
import type { BusEvent, Interest } from '../port.js';
import { type HistoryParts, type Page, readHistory } from './history.js';

/** What one caller wants. */
export interface Excerpt extends Interest {
  /** The place after which to read, and the place up to which. */
  readonly after: number;
  readonly until: number;
  /** Whether it fails where the stream drops, meanwhile, what it has not read yet. */
  readonly whole: boolean;
}

/** Events of one caller, in the order of the stream. To be iterated once. */
export interface ExcerptReading extends AsyncIterable<BusEvent> {
  /** Ends the iteration at once. */
  close(): void;
}

/** How far apart, in sequences, places may lie to share a reading: a first caller waits for nobody's past. */
const NEARBY = 10_000;
/** Readings at the same time in this process; who comes later waits, and gathers company. */
const MAX_READINGS = 16;
/** Pages that may wait for a caller. One that is slower leaves the reading and begins another when it is ready. */
const MAX_WAITING = 4;

export class SharedHistory {
  readonly #parts: (interest: Interest) => HistoryParts;
  readonly #groups = new Map<string, Set<Group>>();
  readonly #queue: (() => void)[] = [];
  #running = 0;

  constructor(parts: (interest: Interest) => HistoryParts) {
    this.#parts = parts;
  }

  /** @throws ProblemError `unavailable`, in the iteration: what came before it is complete up to there */
  read(excerpt: Excerpt): ExcerptReading {
    const reader = new Reader(excerpt, () => this.#join(reader));
    return reader;
  }

  #join(reader: Reader): void {
    const { audience, scope, filter } = reader.excerpt;
    const key = JSON.stringify([audience, scope, filter]);
    const groups = this.#groups.get(key) ?? new Set();
    this.#groups.set(key, groups);
    for (const group of groups) if (group.admit(reader)) return;
    const group = new Group(reader);
    groups.add(group);
    void this.#run(group, () => {
      groups.delete(group);
      if (groups.size === 0) this.#groups.delete(key);
    });
  }

  /** Never rejects. */
  async #run(group: Group, over: () => void): Promise<void> {
    // Whoever asks in this turn reads along.
    await new Promise(setImmediate);
    // A free place is handed on to whoever waited longest.
    if (this.#running < MAX_READINGS) this.#running++;
    else await new Promise<void>((free) => this.#queue.push(free));
    try {
      const { excerpt } = group;
      const pages = readHistory(this.#parts(excerpt), excerpt, group.begin(), () => group.until);
      for await (const page of pages) group.take(page);
    } catch (error) {
      group.fail(error);
    } finally {
      over();
      const next = this.#queue.shift();
      if (next) next();
      else this.#running--;
    }
    // They came when the last page had been asked for.
    for (const reader of group.readers) this.#join(reader);
  }
}

/** Callers who share a reading. */
class Group {
  readonly readers = new Set<Reader>();
  readonly excerpt: Excerpt;
  #begun = false;
  /** Where the reading begins, then where it stands. */
  #place: number;

  constructor(first: Reader) {
    this.excerpt = first.excerpt;
    this.#place = first.place;
    this.#add(first);
  }

  /** Takes somebody in, as long as nothing is missed by that. */
  admit(reader: Reader): boolean {
    const ahead = reader.place - this.#place;
    if (Math.abs(ahead) > NEARBY || (this.#begun && ahead < 0)) return false;
    this.#place = Math.min(this.#place, reader.place);
    this.#add(reader);
    return true;
  }

  /** From here on the reading goes forward. */
  begin(): number {
    this.#begun = true;
    return this.#place;
  }

  /** The furthest place that anybody wants. */
  get until(): number {
    let until = 0;
    for (const { excerpt } of this.readers) until = Math.max(until, excerpt.until);
    return until;
  }

  take(page: Page): void {
    const before = this.#place;
    this.#place = page.upTo;
    for (const reader of this.readers) if (!reader.take(page, before)) this.readers.delete(reader);
  }

  fail(error: unknown): void {
    for (const reader of this.readers) reader.fail(error);
    this.readers.clear();
  }

  #add(reader: Reader): void {
    this.readers.add(reader);
    reader.leave = () => this.readers.delete(reader);
  }
}

class Reader implements ExcerptReading {
  readonly excerpt: Excerpt;
  /** Up to here everything was given out, or waits. */
  place: number;
  /** Set by the group. */
  leave = () => {};
  readonly #join: () => void;
  readonly #waiting: Page[] = [];
  #joined = false;
  #closed = false;
  #error: unknown;
  #wake = () => {};

  constructor(excerpt: Excerpt, join: () => void) {
    this.excerpt = excerpt;
    this.place = excerpt.after;
    this.#join = join;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<BusEvent, void, void> {
    const { after, until } = this.excerpt;
    let given = after;
    try {
      while (!this.#closed) {
        const page = this.#waiting.shift();
        if (page) {
          for (const event of page.events) {
            const { sequence } = event.position;
            if (sequence > given && sequence <= until) yield event;
            if (this.#closed) return;
          }
          given = Math.max(given, page.upTo);
          continue;
        }
        if (this.#error) throw this.#error;
        if (this.place >= until) return;
        await this.#more();
      }
    } finally {
      this.close();
    }
  }

  /** Takes a page of the reading. False where this was its last. */
  take(page: Page, before: number): boolean {
    if (this.excerpt.whole && page.first > Math.max(before, this.place) + 1) {
      this.fail(new ProblemError('unavailable', 'History was dropped while it was read: resume again'));
      return false;
    }
    this.#joined = this.#waiting.length < MAX_WAITING;
    if (!this.#joined) return false;
    if (page.upTo > this.place) {
      this.place = page.upTo;
      this.#waiting.push(page);
      this.#wake();
    }
    return this.place < this.excerpt.until;
  }

  fail(error: unknown): void {
    this.#error = error;
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.leave();
    this.#wake();
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (this.#joined) return;
      this.#joined = true;
      this.#join();
    });
  }
}
