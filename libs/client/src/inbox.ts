/** The user's inbox, live (docs/protocols/esn.md, "Inbox"). What it knows is in inbox-state.ts. */
import {
  type InboxAnswer,
  type InboxCounts,
  type InboxInput,
  InboxState,
  type InboxUpdate,
  type UserNotification,
} from './inbox-state.js';
import type { ConnectionState, Handler, RequestOptions, SubscribeOptions, Subscription } from './types.js';

/** What it needs of the client. */
export interface InboxClient {
  request(method: string, path: string, body?: unknown, options?: RequestOptions): Promise<unknown>;
  subscribe(topic: string, handler: Handler, options?: SubscribeOptions): Subscription;
  on(event: 'state', listener: (state: ConnectionState) => void): () => void;
}

export interface InboxListOptions {
  /** Only those that were read, or only unread ones. Default: both. */
  readonly read?: boolean | undefined;
  /** 1 to 100. Default 20. */
  readonly limit?: number | undefined;
  /** `nextCursor` of the page before. */
  readonly cursor?: string | undefined;
}

/** A page, newest first. Acknowledged and withdrawn notifications are neither listed nor counted. */
export interface InboxPage {
  readonly items: readonly UserNotification[];
  readonly unreadCount: number;
  readonly version: number;
  /** Null at the end. */
  readonly nextCursor: string | null;
}

/** What became of the inbox. */
export interface InboxChange {
  readonly unreadCount: number;
  /** Grows with every change of the inbox, whoever made it. */
  readonly version: number;
  /** `loaded`: the list begins anew; `extended`: it has a page more; `counted`: an answer told another count. */
  readonly change:
    | 'loaded'
    | 'extended'
    | 'counted'
    | 'created'
    | 'read'
    | 'unread'
    | 'acknowledged'
    | 'unacknowledged'
    | 'withdrawn'
    | 'removed';
  /** The notifications that it is about; none where the list was loaded, or an answer told it. */
  readonly ids: readonly string[];
  /** The one that was created or changed, where it is one. */
  readonly notification: UserNotification | undefined;
}

/** The largest page. */
const PAGE = 100;

/** How long the first list waits for the subscriptions, in milliseconds: it is good from when they have begun. */
const BEGIN = 2_000;

/** How long what is missing may take before the list is asked for again, and the longest pause after failures. */
const MOMENT = 2_000;
const LONGEST = 60_000;

export class Inbox {
  readonly #client: InboxClient;
  readonly #guard: (call: () => unknown) => void;
  readonly #state = new InboxState();
  readonly #listeners = new Set<(change: InboxChange) => void>();
  #subscriptions: readonly Subscription[] = [];
  /** True once both topics are subscribed; undefined before the first use and after a subscription ended. */
  #live: Promise<boolean> | undefined;
  /** Loads follow one another: each takes over what the one before left. */
  #loads: Promise<unknown> = Promise.resolve();
  /** First pages that are asked for. */
  #asked = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #closed = false;

  /** @param guard calls a listener, and reports what it throws */
  constructor(client: InboxClient, guard: (call: () => unknown) => void = (call) => call()) {
    this.#client = client;
    this.#guard = guard;
    client.on('state', ({ status }) => {
      if (status !== 'closed') return;
      this.#closed = true;
      clearTimeout(this.#timer);
    });
  }

  /** How many are unread, exactly; undefined until the server has told. */
  get unreadCount(): number | undefined {
    return this.#state.unreadCount;
  }

  /** Grows by one with every change of the inbox; undefined until the server has told. */
  get version(): number | undefined {
    return this.#state.version;
  }

  /** Those that were listed, newest first, as they are now. Another array whenever it is another list. */
  get items(): readonly UserNotification[] {
    return this.#state.items;
  }

  /** Where `items` go on: `list({ cursor: nextCursor })` adds the next page. Null at the end. */
  get nextCursor(): string | null {
    return this.#state.next;
  }

  /**
   * Asks for a page. Without `read`, a first page begins `items` anew and the one at `nextCursor` is added to them;
   * any other is only answered.
   */
  list({ read, limit, cursor }: InboxListOptions = {}): Promise<InboxPage> {
    const query = Object.entries({ read, limit, cursor })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${encodeURIComponent(value as string)}`)
      .join('&');
    if (read !== undefined) return this.#page(query).then((page) => this.#told(page));
    return this.#load(cursor, query);
  }

  /**
   * Marks notifications as read, or unread, up to 1,000 by their ids; ids that are none of the inbox are passed over. `all`: those that the
   * inbox lists when the server gets it. What is so already changes nothing. `items` follow with the event of it.
   * @returns how many were not so before, and the count after it
   */
  async markRead(
    ids: string | readonly string[] | 'all',
    value = true,
  ): Promise<{ readonly updated: number; readonly unreadCount: number }> {
    const which = ids === 'all' ? { all: true } : { ids: typeof ids === 'string' ? [ids] : ids };
    const { updated, ...told } = await this.#put<InboxCounts & { updated: number }>('read', {
      ...which,
      value,
    });
    this.#hear({ told }, { change: 'counted' });
    return { updated, unreadCount: told.unread_count };
  }

  /** Takes a notification out of the list, or puts it back; answers it as it is then. */
  acknowledge(id: string, value = true): Promise<UserNotification> {
    return this.#put(`${encodeURIComponent(id)}/acknowledged`, { value });
  }

  /** Calls the listener with every change from now on, first with `loaded`. Returns what ends that. */
  on(_: 'change', listener: (change: InboxChange) => void): () => void {
    const own = (change: InboxChange) => listener(change);
    this.#listeners.add(own);
    if (!this.#live && this.#asked === 0) this.#reload();
    return () => this.#listeners.delete(own);
  }

  #page(query: string): Promise<InboxAnswer> {
    return this.#client.request('GET', `/v1/notifications${query && `?${query}`}`) as Promise<InboxAnswer>;
  }

  async #put<Reply>(path: string, body: object): Promise<Reply> {
    return (await this.#client.request('PUT', `/v1/notifications/${path}`, body)) as Reply;
  }

  #told(page: InboxAnswer): InboxPage {
    this.#hear({ told: page }, { change: 'counted' });
    return pageOf(page);
  }

  #load(cursor: string | undefined, query: string): Promise<InboxPage> {
    if (cursor === undefined) this.#asked += 1;
    const load = this.#loads.then(() =>
      cursor === undefined ? this.#first(query) : this.#more(cursor, query),
    );
    this.#loads = load.catch(() => {});
    return load;
  }

  async #first(query: string): Promise<InboxPage> {
    const state = this.#state;
    try {
      const begun = this.#begin();
      const live = await within(begun, BEGIN);
      state.loading();
      const page = await this.#page(query);
      state.loaded(page);
      this.#failures = 0;
      // What happened before the subscriptions began, they do not tell.
      if (live === undefined) void begun.then((late) => late && this.#doubt());
      this.#tell({ change: 'loaded' });
      return pageOf(page);
    } finally {
      state.settled();
      this.#asked -= 1;
      this.#watch();
    }
  }

  async #more(cursor: string, query: string): Promise<InboxPage> {
    const page = await this.#page(query);
    if (cursor !== this.#state.next) return this.#told(page);
    this.#state.extended(page);
    this.#tell({ change: 'extended' });
    this.#watch();
    return pageOf(page);
  }

  /** Subscribes, where it has not; resolves with whether it could. */
  #begin(): Promise<boolean> {
    if (this.#live) return this.#live;
    const subscribe = (topic: string, handler: Handler) =>
      this.#client.subscribe(topic, handler, {
        onGap: () => this.#doubt(),
        onError: (error) => {
          this.#end();
          // Thrown on, so that the client reports it: nobody else is told.
          if (error.code !== 'closed') throw error;
        },
      });
    // In this order: no update about a notification whose creation comes is older than the subscription.
    this.#subscriptions = [
      subscribe('usernotification:updated', (updated: InboxUpdate) => {
        const { notification, ids = notification ? [notification.id] : [] } = updated;
        this.#hear({ updated }, { change: updated.change as InboxChange['change'], ids, notification });
      }),
      subscribe('usernotification:created', (created: UserNotification) =>
        this.#hear({ created }, { change: 'created', ids: [created.id], notification: created }),
      ),
    ];
    this.#live = Promise.all(this.#subscriptions.map(({ ready }) => ready)).then(
      () => true,
      () => false,
    );
    return this.#live;
  }

  /** A subscription was ended for good: the next use tries anew. */
  #end(): void {
    this.#live = undefined;
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
  }

  #hear(input: InboxInput, change: Change): void {
    const news = this.#state.apply(input);
    this.#watch();
    if (news) this.#tell(change);
  }

  #tell({ change, ids = [], notification }: Change): void {
    const { unreadCount, version } = this.#state;
    if (unreadCount === undefined || version === undefined) return;
    const whole: InboxChange = { unreadCount, version, change, ids, notification };
    for (const listener of this.#listeners) this.#guard(() => listener(whole));
  }

  #doubt(): void {
    this.#state.doubt = true;
    this.#watch();
  }

  /** Asks for the list again where what is missing does not come within a moment. */
  #watch(): void {
    const { behind, told } = this.#state;
    if (!behind || this.#asked > 0 || this.#timer !== undefined || this.version === undefined) return;
    this.#later(() => {
      if (this.#state.doubt || this.#state.reached < told) this.#reload();
      else this.#watch();
    });
  }

  #reload(): void {
    const limit = Math.min(PAGE, this.#state.items.length);
    this.#load(undefined, limit > 20 ? `limit=${limit}` : '').catch(() => {
      this.#failures += 1;
      this.#later(() => this.#reload());
    });
  }

  /** Of many clients whose subscriptions were broken off at once, not all ask at once. */
  #later(task: () => void): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const pause = Math.min(LONGEST, MOMENT * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      task();
    }, pause);
  }
}

type Change = Pick<InboxChange, 'change'> & Partial<Pick<InboxChange, 'ids' | 'notification'>>;

function pageOf({ items, unread_count, version, next_cursor }: InboxAnswer): InboxPage {
  return { items, unreadCount: unread_count, version, nextCursor: next_cursor };
}

/** What a promise comes to, or undefined once the time is over. */
function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  return Promise.race([promise, over]).finally(() => clearTimeout(timer));
}
