/** What a client knows of an inbox against a model of the server's (docs/protocols/esn.md, "Inbox"). */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  type InboxAnswer,
  type InboxInput,
  InboxState,
  type InboxUpdate,
  KNOWN_LIMIT,
  type UserNotification,
} from '../src/inbox-state.js';

const START = Date.UTC(2026, 0, 1);

function notification(id: string, at: number): UserNotification {
  return {
    id,
    subject: { objectType: 'user', id: 'ann' },
    verb: { label: 'ESN_X', text: 'x' },
    complement: { objectType: 'community', id: 'chess' },
    context: null,
    description: null,
    icon: null,
    category: 'external',
    interactive: false,
    action: [],
    target: 'tom',
    read: false,
    acknowledged: false,
    withdrawn: false,
    timestamps: { creation: new Date(START + at).toISOString() },
  };
}

/** The server's inbox: what it stores, and the events that it publishes on its two topics. */
class Server {
  version = 0;
  readonly #stored: { item: UserNotification; ordinal: number }[] = [];
  #now = 10_000;
  #ids = 0;
  /** What was published, in its order, and from where on it is kept. */
  readonly stream: InboxInput[] = [];
  kept = 0;
  /** Recorded and not yet published, in the order of recording. */
  readonly #recorded: (UserNotification | InboxUpdate)[] = [];

  get listed(): UserNotification[] {
    return this.#stored
      .filter(({ item }) => !item.acknowledged && !item.withdrawn)
      .sort((a, b) => b.ordinal - a.ordinal)
      .map(({ item }) => item);
  }

  get unread(): number {
    return this.listed.filter(({ read }) => !read).length;
  }

  get counts() {
    return { unread_count: this.unread, version: this.version };
  }

  page(limit: number, cursor?: string | null): InboxAnswer {
    const after = Number(cursor ?? Infinity);
    const ordinals = new Map(this.#stored.map(({ item, ordinal }) => [item.id, ordinal]));
    const rest = this.listed.filter(({ id }) => ordinals.get(id)! < after);
    const items = rest.slice(0, limit);
    const last = rest.length > items.length ? String(ordinals.get(items.at(-1)!.id)) : null;
    return { items, next_cursor: last, ...this.counts };
  }

  /** @param pass how much later than the one before; negative for what was redriven */
  create(pass: number): void {
    const at = this.#now + pass;
    this.#now = Math.max(this.#now, at);
    // Ids say nothing of the order.
    const id = `${(this.#ids * 7) % 10}-${this.#ids++}`;
    // Within a millisecond the ordinals are of the server alone.
    const ordinal = at * 1_000 + this.#ids;
    const item = notification(id, at);
    this.#stored.push({ item, ordinal });
    this.version += 1;
    this.#recorded.push(item);
  }

  change(which: number, change: NonNullable<InboxUpdate['change']>): void {
    const stored = this.#stored[which % Math.max(1, this.#stored.length)];
    const flags = {
      read: { read: true },
      unread: { read: false },
      acknowledged: { acknowledged: true },
      unacknowledged: { acknowledged: false },
    }[change];
    if (!stored || stored.item.withdrawn || !flags) return;
    const after = { ...stored.item, ...flags };
    if (JSON.stringify(after) === JSON.stringify(stored.item)) return;
    stored.item = after;
    this.#update({ change, notification: after });
  }

  markAll(value: boolean): void {
    const changed = this.#stored.filter(({ item }) => item.read !== value && !item.withdrawn);
    if (changed.length === 0) return;
    for (const stored of changed) stored.item = { ...stored.item, read: value };
    this.#update({ change: value ? 'read' : 'unread', ids: changed.map(({ item }) => item.id) });
  }

  withdraw(which: number, change: 'withdrawn' | 'removed'): void {
    const stored = this.#stored[which % Math.max(1, this.#stored.length)];
    if (!stored || stored.item.withdrawn || stored.item.acknowledged) return;
    stored.item = { ...stored.item, withdrawn: true };
    const named = change === 'withdrawn' && which % 2 === 0;
    this.#update(named ? { change, notification: stored.item } : { change, ids: [stored.item.id] });
  }

  /** Publishes one of what was recorded, in any order that the contract allows. */
  publish(which: number): void {
    const ready = this.#recorded.filter(
      (event) =>
        'id' in event || !idsOf(event).some((id) => this.#recorded.some((e) => 'id' in e && e.id === id)),
    );
    const event = ready[which % Math.max(1, ready.length)];
    if (!event) return;
    this.#recorded.splice(this.#recorded.indexOf(event), 1);
    this.stream.push('id' in event ? { created: event } : { updated: event });
  }

  publishAll(): void {
    while (this.#recorded.length > 0) this.publish(0);
  }

  #update(update: Omit<InboxUpdate, 'unread_count' | 'version'>): void {
    this.version += 1;
    this.#recorded.push({ ...update, ...this.counts });
  }
}

function idsOf({ notification, ids = [] }: InboxUpdate): readonly string[] {
  return notification ? [notification.id] : ids;
}

type Topic = 'created' | 'updated';

/** One client of the model: it hears each topic from a place on, and asks for pages whose answers take their time. */
class Client {
  readonly state = new InboxState();
  readonly #places: Record<Topic, number>;
  readonly #last: Partial<Record<Topic, InboxInput>> = {};
  #page: InboxAnswer | undefined;
  #more: { readonly cursor: string; readonly page: InboxAnswer } | undefined;

  constructor(
    readonly server: Server,
    readonly limit: number,
  ) {
    const end = server.stream.length;
    this.#places = { created: end, updated: end };
  }

  /** Hears the next event of a topic, and ahead of it that history was lost, if it was; false at the end. */
  hear(topic: Topic): boolean {
    const { stream, kept } = this.server;
    if (stream.slice(this.#places[topic], kept).some((event) => topic in event)) this.state.doubt = true;
    const input = this.#next(topic);
    if (!input) return false;
    this.state.apply(input);
    this.#last[topic] = input;
    return true;
  }

  hearAgain(topic: Topic): void {
    const input = this.#last[topic];
    if (input) this.state.apply(input);
  }

  /**
   * An event is lost, and nobody says so. That is noticed by the version, unless it says what became of a notification
   * whose creation is yet to come.
   */
  miss(topic: Topic): void {
    if (this.#page || (topic === 'updated' && this.#left('created'))) return;
    this.#next(topic);
  }

  ask(): void {
    if (this.#page || this.#more) return;
    this.state.loading();
    this.#page = this.server.page(this.limit);
  }

  /** Asks for the next page. */
  askMore(): void {
    const cursor = this.state.next;
    if (this.#page || this.#more || cursor === null) return;
    this.#more = { cursor, page: this.server.page(this.limit, cursor) };
  }

  answer(): void {
    if (this.#page) this.state.loaded(this.#page);
    if (this.#more && this.#more.cursor === this.state.next) this.state.extended(this.#more.page);
    this.#page = undefined;
    this.#more = undefined;
  }

  /** All that was published is heard, and where the state says so, the list is asked for again. */
  settle(): void {
    this.answer();
    while (this.hear('updated') || this.hear('created'));
    this.state.apply({ told: this.server.counts });
    if (this.state.version !== undefined && !this.state.behind) return;
    this.load();
  }

  load(): void {
    this.ask();
    this.answer();
  }

  #left(topic: Topic): boolean {
    return this.server.stream.slice(this.#places[topic]).some((event) => topic in event);
  }

  #next(topic: Topic): InboxInput | undefined {
    const { stream, kept } = this.server;
    const from = Math.max(kept, this.#places[topic]);
    const at = stream.findIndex((event, i) => i >= from && topic in event);
    this.#places[topic] = at < 0 ? stream.length : at + 1;
    return stream[at];
  }
}

type Step = (server: Server, clients: readonly Client[]) => void;

const index = fc.nat(50);
const topic = fc.constantFrom('created' as const, 'updated' as const);
const at = <T>(list: readonly T[], i: number): T => list[i % list.length]!;

const changes: fc.Arbitrary<Step> = fc.oneof(
  fc
    .oneof(
      { weight: 15, arbitrary: fc.integer({ min: 1, max: 9 }) },
      { arbitrary: fc.constantFrom(0, -15), weight: 1 },
    )
    .map(
      (pass): Step =>
        (server) =>
          server.create(pass),
    ),
  fc.tuple(index, fc.constantFrom('read', 'unread', 'acknowledged', 'unacknowledged')).map(
    ([i, change]): Step =>
      (server) =>
        server.change(i, change),
  ),
  fc.boolean().map(
    (value): Step =>
      (server) =>
        server.markAll(value),
  ),
  fc.tuple(index, fc.constantFrom('withdrawn' as const, 'removed' as const)).map(
    ([i, change]): Step =>
      (server) =>
        server.withdraw(i, change),
  ),
);
const published: fc.Arbitrary<Step> = index.map((i) => (server) => server.publish(i));
const client = (act: (client: Client) => void) =>
  index.map(
    (i): Step =>
      (_, all) =>
        act(at(all, i)),
  );
const heard: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.tuple(index, topic).map(
      ([i, t]): Step =>
        (_, all) =>
          void at(all, i).hear(t),
    ),
  },
  fc.tuple(index, topic).map(
    ([i, t]): Step =>
      (_, all) =>
        at(all, i).hearAgain(t),
  ),
  client((one) => one.ask()),
  client((one) => one.askMore()),
  client((one) => one.answer()),
  index.map(
    (i): Step =>
      (server, all) =>
        void at(all, i).state.apply({ told: server.counts }),
  ),
);
const lost: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(index, topic).map(
    ([i, t]): Step =>
      (_, all) =>
        at(all, i).miss(t),
  ),
  fc.constant<Step>((server) => {
    server.kept = server.stream.length;
  }),
);

describe('what a client knows of an inbox', () => {
  it("ends with the server's count and order, however events are delayed, swapped, repeated or lost", () => {
    const step = fc.oneof(
      { weight: 20, arbitrary: changes },
      { weight: 20, arbitrary: published },
      { weight: 40, arbitrary: heard },
      { weight: 1, arbitrary: lost },
    );
    fc.assert(
      fc.property(
        fc.array(changes, { maxLength: 25, size: '+1' }),
        fc.array(step, { maxLength: 80 }),
        fc.integer({ min: 1, max: 6 }),
        fc.boolean(),
        (before, steps, limit, loaded) => {
          const server = new Server();
          for (const each of before) each(server, []);
          for (let i = 0; i < before.length - 2; i++) server.publish(i);
          const clients = [new Client(server, limit), new Client(server, limit)];
          if (loaded) for (const one of clients) one.load();
          for (const each of steps) each(server, clients);
          server.publishAll();
          for (const one of clients) {
            one.settle();
            const { state } = one;
            const { items } = state;
            expect(state.unreadCount).toBe(server.unread);
            expect(state.version).toBe(server.version);
            expect(items).toEqual(server.listed.slice(0, items.length));
            if (state.next === null) expect(items).toHaveLength(server.listed.length);
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

/** A page of notifications, the newest first, all unread. */
function pageOf(
  version: number,
  items: readonly UserNotification[],
  next: string | null = null,
): InboxAnswer {
  return { items, unread_count: items.length, version, next_cursor: next };
}

function begun(version: number, ...items: UserNotification[]): InboxState {
  const state = new InboxState();
  state.loading();
  state.loaded(pageOf(version, items));
  return state;
}

const marked = (
  item: UserNotification,
  version: number,
  unread_count: number,
  flags: object,
): InboxInput => ({
  updated: { change: 'read', notification: { ...item, ...flags }, version, unread_count },
});

const [first, second, third] = [1, 2, 3].map((i) => notification(`n${i}`, i * 1_000)) as [
  UserNotification,
  UserNotification,
  UserNotification,
];

const idsIn = (state: InboxState) => state.items.map(({ id }) => id);

describe('the rules by which events are counted', () => {
  it('knows nothing before the first page', () => {
    const state = new InboxState();
    expect(state.apply({ created: first })).toBe(false);
    expect(state).toMatchObject({ unreadCount: undefined, version: undefined, items: [] });
  });

  it('counts each creation after the page once', () => {
    const state = begun(5, first);
    expect(state.apply({ created: second })).toBe(true);
    expect(state.apply({ created: second })).toBe(false);
    expect(state).toMatchObject({ unreadCount: 2, version: 6, behind: false });
    expect(idsIn(state)).toEqual(['n2', 'n1']);
  });

  it('does not count a creation that the page has, or that what the page has is about', () => {
    const state = begun(7, first);
    state.apply({ created: first });
    expect(state.unreadCount).toBe(1);
    state.apply({ created: second });
    expect(state.unreadCount).toBe(2);
    expect(state.apply(marked(second, 6, 1, { acknowledged: true }))).toBe(true);
    state.apply({ created: second });
    expect(state).toMatchObject({ unreadCount: 1, version: 7, behind: false });
    expect(idsIn(state)).toEqual(['n1']);
  });

  it('believes the update of the highest version, and waits for what lies before it', () => {
    const state = begun(5, second, first);
    state.apply(marked(first, 7, 2, { read: false }));
    expect(state).toMatchObject({ unreadCount: 2, version: 7, behind: true, reached: 6 });
    state.apply(marked(first, 6, 1, { read: true }));
    expect(state).toMatchObject({ unreadCount: 2, version: 7, behind: false });
    expect(state.items.map(({ read }) => read)).toEqual([false, false]);
  });

  it('knows the creation that comes after the update of another notification', () => {
    const state = begun(5, first);
    state.apply(marked(first, 7, 1, { read: true }));
    expect(state).toMatchObject({ unreadCount: 1, behind: true });
    state.apply({ created: second });
    expect(state).toMatchObject({ unreadCount: 1, version: 7, behind: false });
  });

  it('marks what it hears of as new only afterwards', () => {
    const state = begun(5);
    state.apply({ updated: { change: 'read', ids: ['n1'], unread_count: 0, version: 7 } });
    state.apply({ created: first });
    expect(state).toMatchObject({ unreadCount: 0, behind: false, items: [{ id: 'n1', read: true }] });
  });

  it('adds to a page what was heard while it was on its way', () => {
    const state = begun(5, first);
    state.loading();
    state.apply({ created: second });
    state.apply({ created: third });
    state.apply(marked(first, 8, 2, { read: true }));
    state.loaded(pageOf(6, [second, first]));
    expect(state).toMatchObject({ unreadCount: 2, version: 8, behind: false });
    expect(idsIn(state)).toEqual(['n3', 'n2', 'n1']);
  });

  it('is behind an answer that says more', () => {
    const state = begun(5, first);
    expect(state.apply({ told: { unread_count: 0, version: 6 } })).toBe(true);
    expect(state).toMatchObject({ unreadCount: 0, version: 6, behind: true });
  });

  it('goes on with the next page', () => {
    const state = new InboxState();
    state.loading();
    state.loaded({ ...pageOf(3, [third], 'after 3'), unread_count: 3 });
    state.extended({ ...pageOf(4, [second], 'after 2'), unread_count: 2 });
    expect(idsIn(state)).toEqual(['n3', 'n2']);
    expect(state).toMatchObject({ next: 'after 2', unreadCount: 2, behind: true });
    // One beyond the end of the list stays there.
    state.apply(marked(first, 4, 2, { read: true }));
    expect(idsIn(state)).toEqual(['n3', 'n2']);
    expect(state.behind).toBe(false);
  });

  it('doubts the place of what was created in the same moment as another', () => {
    const state = begun(5, first);
    state.apply({ created: { ...first, id: 'twin' } });
    expect(state).toMatchObject({ unreadCount: 2, behind: true });
  });

  it('doubts whether the page counted what is older than its end', () => {
    const state = new InboxState();
    state.loading();
    state.loaded(pageOf(5, [third, second], 'more'));
    state.apply({ created: first });
    expect(state.behind).toBe(true);
  });

  it('begins anew with a server that was restored from a backup', () => {
    const state = begun(50, first);
    state.apply(marked(first, 51, 0, { read: true }));
    state.loading();
    state.loaded(pageOf(20, [first]));
    expect(state).toMatchObject({ unreadCount: 1, version: 20, behind: false, items: [{ read: false }] });
    state.apply(marked(first, 21, 0, { read: true }));
    expect(state).toMatchObject({ unreadCount: 0, version: 21, items: [{ read: true }] });
  });

  it('asks for the list again rather than remember without end', () => {
    const state = begun(0);
    for (let i = 0; i <= KNOWN_LIMIT; i++) state.apply({ created: notification(`n${i}`, i) });
    expect(state).toMatchObject({ unreadCount: KNOWN_LIMIT + 1, behind: true });
  });
});
