/** Feeds that polls have left, kept for a while: the next poll of their client is on its way. */
import type { Feed } from './feed.js';

/** How many one owner may leave behind: with less, a client with many channels would begin anew each time. */
const PER_OWNER = 512;

interface Left {
  readonly owner: string;
  readonly since: number;
}

export class Lingering {
  /** The one that was left last comes last. */
  readonly #left = new Map<Feed, Left>();
  readonly #byOwner = new Map<string, Set<Feed>>();

  get size(): number {
    return this.#left.size;
  }

  has(feed: Feed): boolean {
    return this.#left.has(feed);
  }

  /**
   * Keeps a feed.
   * @param since milliseconds
   * @returns the one that lingers no more instead, where its owner has too many
   */
  keep(feed: Feed, owner: string, since: number): Feed | undefined {
    this.delete(feed);
    this.#left.set(feed, { owner, since });
    const own = this.#byOwner.get(owner) ?? new Set();
    this.#byOwner.set(owner, own.add(feed));
    if (own.size <= PER_OWNER) return undefined;
    const [oldest] = own;
    this.delete(oldest!);
    return oldest;
  }

  delete(feed: Feed): void {
    const left = this.#left.get(feed);
    if (!left) return;
    this.#left.delete(feed);
    const own = this.#byOwner.get(left.owner)!;
    own.delete(feed);
    if (own.size === 0) this.#byOwner.delete(left.owner);
  }

  /** Takes out those that were left up to a time. */
  takeUpTo(time: number): Feed[] {
    const due: Feed[] = [];
    for (const [feed, { since }] of this.#left) {
      if (since > time) break;
      due.push(feed);
    }
    for (const feed of due) this.delete(feed);
    return due;
  }
}
