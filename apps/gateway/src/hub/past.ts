/**
 * What lies before a feed's window, in pages: whoever polls from further back reads the event store once for many
 * polls, and shares the page with whoever is at the same place.
 */
import type { BusEvent } from '@posthorn/bus';
import type { Bus, History } from '@posthorn/bus/platform';
import { type Cursor, formatPosition, isBeyond, type Position } from '@posthorn/contracts';
import { costOf, type WindowBudget } from './window.js';

/** What one page holds at most, and for how long it is kept after its last use, in milliseconds. */
const PAGE_EVENTS = 256;
const PAGE_BYTES = 262_144;
const PAGE_AGE = 30_000;
/** Pages of one feed: as many places at which clients may be reading side by side. */
const PAGES = 4;

/** A stretch of the stream, complete for the feed's filter. */
export interface Page {
  /** It holds what was stored after this place, and up to that one. */
  readonly after: Position;
  readonly upTo: number;
  readonly events: readonly BusEvent[];
  readonly cost: number;
}

interface KeptPage extends Page {
  usedAt: number;
}

export interface PastOptions {
  readonly bus: Pick<Bus, 'history' | 'horizon'>;
  readonly audience: string;
  readonly filter: string;
  readonly budget: WindowBudget;
  /** Counts pages that were read. */
  readonly pageRead: () => void;
  /** Milliseconds. */
  readonly now?: () => number;
}

/** What a page says of a place: the first event after it, or that there is none up to another place. */
export type Glance = { readonly event: BusEvent } | { readonly upTo: number };

export class Past {
  readonly #options: PastOptions;
  readonly #now: () => number;
  /** The one that was used last comes last. */
  readonly #pages: KeptPage[] = [];
  readonly #reading = new Map<string, Promise<Page | false>>();
  #closed = false;

  constructor(options: PastOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /**
   * What is known of the events after a place; undefined where that has to be {@link read}.
   * @param held a page that may be forgotten here
   */
  glance(since: Cursor, reached: number, held?: Page): Glance | undefined {
    const page = held && reachesBeyond(held, since.epoch, reached) ? held : this.page(since.epoch, reached);
    if (!page) return undefined;
    const event = page.events.find(
      ({ position, path }) => position.sequence > reached && isBeyond(position, since, path),
    );
    return event ? { event } : { upTo: page.upTo };
  }

  /** A page that reaches beyond a place; undefined where that has to be {@link read}. */
  page(epoch: string, reached: number): Page | undefined {
    for (let i = this.#pages.length - 1; i >= 0; i--) {
      const page = this.#pages[i]!;
      if (!reachesBeyond(page, epoch, reached)) continue;
      page.usedAt = this.#now();
      return page;
    }
    return undefined;
  }

  /**
   * Reads the page after a place. Resolves with it, or with false where events after the place are not kept any more.
   * @param size what the page may cost, for whoever has to hold many at once
   * @throws ProblemError `unavailable`
   */
  read(epoch: string, reached: number, size = PAGE_BYTES): Promise<Page | false> {
    const after = { epoch, sequence: reached };
    const place = formatPosition(after);
    const known = this.#reading.get(place);
    if (known) return known;
    const reading = this.#read(after, size).finally(() => this.#reading.delete(place));
    this.#reading.set(place, reading);
    return reading;
  }

  /** Forgets pages that nobody has used for a while. */
  sweep(): void {
    const oldest = this.#now() - PAGE_AGE;
    while (this.#pages[0] && this.#pages[0].usedAt < oldest) this.#forget();
  }

  /** Holds nothing any more. */
  close(): void {
    this.#closed = true;
    while (this.#pages.length > 0) this.#forget();
  }

  async #read(after: Position, size: number): Promise<Page | false> {
    const { bus, audience, filter, budget, pageRead } = this.#options;
    pageRead();
    const until = await bus.horizon('global');
    const history = await bus.history({ audience, scope: 'global', filter }, after, until);
    let page: Page | false;
    try {
      page = history.recovered && (await readPage(history, after, until, size));
    } finally {
      history.close();
    }
    if (!page || this.#closed) return page;
    this.#pages.push({ ...page, usedAt: this.#now() });
    budget.used += page.cost;
    while (this.#pages.length > PAGES || (budget.exceeded && this.#pages.length > 1)) this.#forget();
    return page;
  }

  #forget(): void {
    const page = this.#pages.shift();
    if (page) this.#options.budget.used -= page.cost;
  }
}

function reachesBeyond({ after, upTo }: Page, epoch: string, reached: number): boolean {
  return after.epoch === epoch && after.sequence <= reached && upTo > reached;
}

/**
 * The beginning of a history, as a page.
 * @param after the place that it was asked for
 * @param until its end
 * @param size what the page may cost
 */
export async function readPage(
  history: History,
  after: Position,
  until: Position,
  size: number,
): Promise<Page> {
  const events: BusEvent[] = [];
  let cost = 0;
  for await (const event of history) {
    // The payload is a view into a far larger buffer, which must not be kept for it.
    events.push({ ...event, bytes: Buffer.from(event.bytes) });
    cost += costOf(event);
    if (events.length < PAGE_EVENTS && cost < size) continue;
    return { after, upTo: event.position.sequence, events, cost };
  }
  return { after, upTo: until.sequence, events, cost };
}
