/**
 * What a client knows of its user's inbox: a page of it, and the events after that page, which come on two topics
 * and so in no order among each other (docs/protocols/esn.md, "Inbox"). No input or output, no clock: inbox.ts has
 * those.
 *
 * - Only what a page or an update says is believed of the count. Beside it, each `usernotification:created` that is
 *   newer adds one: with a page of version `v` and `n` events after it, `v + n` is reached, and what was told last
 *   is `w`. Where `w` is less, the `v + n - w` events beyond it are creations, for every update up to there was told.
 *   Where it is more, something is on its way, or lost.
 * - An update says by its version whether the page has it. A creation says nothing: it is older than the page where
 *   the page lists it, or where an update that the page has names it, since no update comes ahead of the creation of
 *   what it is about.
 * - Each flag of a notification is that of the highest version that spoke of it.
 */

/** A notification of the user (docs/protocols/esn.md, "Notification worker"). */
export interface UserNotification {
  readonly id: string;
  readonly subject: { readonly objectType: 'user'; readonly id: string };
  readonly verb: { readonly label: string; readonly text: string };
  readonly complement: { readonly objectType: string; readonly id: string };
  readonly context: { readonly objectType: string; readonly id: string } | null;
  readonly description: string | null;
  readonly icon: { readonly objectType: 'icon'; readonly id: string } | null;
  readonly category: string;
  readonly interactive: boolean;
  readonly action: readonly {
    readonly url: string;
    readonly display: { readonly label: string; readonly text: string };
  }[];
  readonly target: string;
  readonly read: boolean;
  readonly acknowledged: boolean;
  readonly withdrawn: boolean;
  readonly timestamps: { readonly creation: string };
  readonly title?: string;
  readonly level?: string;
  readonly data?: unknown;
}

/** How an inbox stood, as an answer or an update says. */
export interface InboxCounts {
  readonly unread_count: number;
  readonly version: number;
}

/** A page as the server gives it. */
export interface InboxAnswer extends InboxCounts {
  readonly items: readonly UserNotification[];
  readonly next_cursor: string | null;
}

/** The payload of `usernotification:updated`. */
export interface InboxUpdate extends InboxCounts {
  readonly change?: string;
  readonly notification?: UserNotification;
  readonly ids?: readonly string[];
}

/** What is heard of an inbox between two pages. */
export type InboxInput =
  | { readonly created: UserNotification }
  | { readonly updated: InboxUpdate }
  | { readonly told: InboxCounts };

const FLAGS = ['read', 'acknowledged', 'withdrawn'] as const;
type Flags = Pick<UserNotification, (typeof FLAGS)[number]>;

/** What is known of a notification: of each flag twice the version that it is of, and one more where it is set. */
interface Known extends Record<keyof Flags, number> {
  item: UserNotification | undefined;
  /** The first version that spoke of it: what made it is older. */
  first: number;
}

/** Of how many notifications is remembered what was heard, before the list is asked for again. */
export const KNOWN_LIMIT = 4_000;

/** Of how many that is kept where it is. */
const KEPT = 1_000;

/** What a change does to those that it names by their ids alone. */
const CHANGES: Readonly<Record<string, Partial<Flags>>> = {
  read: { read: true },
  unread: { read: false },
  acknowledged: { acknowledged: true },
  unacknowledged: { acknowledged: false },
  withdrawn: { withdrawn: true },
  removed: { withdrawn: true },
};

export class InboxState {
  /** What cannot be told from what was heard: only a new page says it. */
  doubt = false;
  /** Where the page after those that are listed begins; null at the end, and before the first page. */
  next: string | null = null;
  /** The version of the page that all events are counted from. */
  #base: number | undefined;
  /** How many events came that it does not have. */
  #events = 0;
  readonly #counted = new Set<string | number>();
  #told: InboxCounts = { unread_count: 0, version: 0 };
  readonly #known = new Map<string, Known>();
  /** When the last of the first page, and of all listed, was created; empty where there are no more. */
  #pageEnd = '';
  #end = '';
  #flight: InboxInput[] | undefined;
  #items: readonly UserNotification[] | undefined;

  /** Undefined before the first page. */
  get unreadCount(): number | undefined {
    const { unread_count, version } = this.#told;
    return this.#base === undefined ? undefined : unread_count + Math.max(0, this.reached - version);
  }

  get version(): number | undefined {
    return this.#base === undefined ? undefined : Math.max(this.told, this.reached);
  }

  /** The version that is complete, as far as counting says. */
  get reached(): number {
    return (this.#base ?? 0) + this.#events;
  }

  /** The highest version that was told. */
  get told(): number {
    return this.#told.version;
  }

  /** Whether events are on their way, or lost, or the list is in doubt. */
  get behind(): boolean {
    return this.doubt || this.told > this.reached;
  }

  /** Those of the inbox that were loaded, newest first. Another array whenever it is another list. */
  get items(): readonly UserNotification[] {
    this.#items ??= [...this.#known.values()]
      .filter((known) => this.#isListed(known))
      .map(({ item }) => item as UserNotification)
      // Of one moment: as the page has them.
      .sort((a, b) => compare(b.timestamps.creation, a.timestamps.creation));
    return this.#items;
  }

  /** A first page is asked for: what comes from now on may be newer than it. */
  loading(): void {
    this.#flight = [];
  }

  /** The first page: all that was known before gives way to it. */
  loaded(page: InboxAnswer): void {
    const flight = this.#flight ?? [];
    this.#flight = undefined;
    this.#base = page.version;
    this.#events = 0;
    this.#counted.clear();
    this.#told = page;
    this.doubt = false;
    const before = [...this.#known].slice(-KEPT);
    this.#known.clear();
    // What the page's updates were about may still be told as created.
    for (const [id, { first }] of before) if (first <= page.version) this.#of(id).first = first;
    this.#list(page);
    this.#pageEnd = this.#end;
    for (const input of flight) this.apply(input);
  }

  /** None is asked for any more. */
  settled(): void {
    this.#flight = undefined;
  }

  /** The page that follows those that are listed. */
  extended(page: InboxAnswer): void {
    this.#list(page);
    this.apply({ told: page });
  }

  /**
   * Takes over what was heard; true where that is news.
   * Before the first page it is only remembered.
   */
  apply(input: InboxInput): boolean {
    this.#flight?.push(input);
    if ('created' in input) return this.#create(input.created);
    if ('updated' in input) return this.#update(input.updated);
    return this.#tell(input.told);
  }

  #create(item: UserNotification): boolean {
    const known = this.#of(item.id);
    if (this.#base === undefined || known.first <= this.#base || !this.#count(item.id)) return false;
    if (item.timestamps.creation <= this.#pageEnd) this.doubt = true;
    if (!known.item) this.#hold(known, item);
    return true;
  }

  #update(update: InboxUpdate): boolean {
    const { version, notification } = update;
    const isNew = this.#base !== undefined && version > this.#base;
    let news = isNew;
    if (isNew && !this.#count(version)) return false;
    const flags = notification ?? CHANGES[update.change ?? ''];
    if (!flags) this.doubt = true;
    for (const id of notification ? [notification.id] : (update.ids ?? [])) {
      const known = this.#of(id);
      known.first = Math.min(known.first, version);
      // Its creation came first, and was taken for newer than the page, which does not list it any more.
      if (!isNew && this.#counted.delete(id)) {
        this.#events -= 1;
        known.item = undefined;
        news = true;
      }
      if (isNew && notification && !known.item) this.#hold(known, notification);
      if (flags) this.#set(known, flags, version);
    }
    this.#tell(update);
    return news;
  }

  #tell({ unread_count, version }: InboxCounts): boolean {
    const before = this.unreadCount;
    if (version > this.told) this.#told = { unread_count, version };
    return this.unreadCount !== before;
  }

  /** Notes an event that the page does not have; false where it was noted before. */
  #count(event: string | number): boolean {
    if (this.#counted.has(event)) return false;
    this.#counted.add(event);
    this.#events += 1;
    return true;
  }

  #of(id: string): Known {
    let known = this.#known.get(id);
    if (!known) {
      known = { item: undefined, first: Infinity, read: 0, acknowledged: 0, withdrawn: 0 };
      this.#known.set(id, known);
      if (this.#known.size > KNOWN_LIMIT) this.doubt = true;
    }
    return known;
  }

  #list({ items, version, next_cursor }: InboxAnswer): void {
    for (const item of items) {
      const known = this.#of(item.id);
      // At the end: of one moment, the page's order is the order.
      this.#known.delete(item.id);
      this.#known.set(item.id, known);
      known.item = item;
      known.first = Math.min(known.first, version);
      this.#set(known, item, version);
    }
    this.next = next_cursor;
    this.#end = next_cursor === null ? '' : (items.at(-1)?.timestamps.creation ?? '');
    this.#items = undefined;
  }

  /** Takes one in that no page had. */
  #hold(known: Known, item: UserNotification): void {
    const moment = item.timestamps.creation;
    // Which of two of one moment comes first, a page knows alone.
    const same = (other: Known) => other.item?.timestamps.creation === moment;
    if (moment === this.#end || [...this.#known.values()].some(same)) this.doubt = true;
    known.item = item;
    this.#set(known, {}, 0);
  }

  #set(known: Known, flags: Partial<Flags>, version: number): void {
    for (const flag of FLAGS) {
      if (flags[flag] !== undefined) known[flag] = Math.max(known[flag], 2 * version + Number(flags[flag]));
      const value = known[flag] % 2 === 1;
      if (known.item && known.item[flag] !== value) known.item = { ...known.item, [flag]: value };
    }
    this.#items = undefined;
  }

  #isListed({ item }: Known): boolean {
    return !!item && !item.acknowledged && !item.withdrawn && item.timestamps.creation >= this.#end;
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
