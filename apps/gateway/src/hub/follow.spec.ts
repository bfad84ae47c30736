import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import type { Bus, History } from '@posthorn/bus/platform';
import {
  BUCKETS,
  type Cursor,
  makeEpoch,
  type ProblemError,
  parseCursor,
  STREAMS,
  type StreamRecord,
} from '@posthorn/contracts';
import { Tally } from '@posthorn/service';
import { Collected, draftOf, eventually, prepareBus, type ServedBus, startBus } from '@posthorn/testing';
import type { FeedEvent } from './feed.js';
import type { Follow, FollowStart } from './follow.js';
import { Hub } from './hub.js';
import { Turn } from './turn.js';

/** A gateway's hub on a bus, with a count of what it has open there. */
class Side {
  readonly hub: Hub;
  /** Histories and subscriptions that nobody has closed. */
  open = 0;
  /** Histories that were asked for. */
  readings = 0;

  constructor({ bus }: ServedBus) {
    const counted = <T extends { close(): void }>(opened: T): T => {
      const close = opened.close.bind(opened);
      let closed = false;
      this.open++;
      opened.close = () => {
        if (!closed) this.open--;
        closed = true;
        close();
      };
      return opened;
    };
    const history = async (...asked: Parameters<Bus['history']>): Promise<History> => {
      this.readings++;
      return counted(await bus.history(...asked));
    };
    const live: Bus['live'] = (...asked) => counted(bus.live(...asked));
    const ephemeral: Bus['ephemeral'] = (...asked) => counted(bus.ephemeral(...asked));
    const horizon: Bus['horizon'] = (scope) => bus.horizon(scope);
    this.hub = new Hub({
      bus: { history, live, ephemeral, horizon } as Bus,
      turn: new Turn(),
      delivered: new Tally(),
      retention: () => undefined,
      resumed() {},
      pageRead() {},
    });
  }
}

interface Told {
  readonly event: FeedEvent;
  readonly place: string | undefined;
}

/** A client's side of a stream. */
class Following {
  readonly told = new Collected<Told>();
  readonly broken: ProblemError[] = [];
  readonly follow: Follow;
  readonly start: Promise<FollowStart>;
  /** Called with each event. */
  taken = (_: Told): void => {};
  #room: Promise<void> | undefined;
  #release = () => {};

  constructor({ hub }: Side, filters: readonly string[], since?: Cursor) {
    this.follow = hub.follow({
      audience: 'acme',
      filters,
      since,
      mayReceive: () => true,
      reader: {
        take: (event, place) => {
          this.told.add({ event, place });
          this.taken({ event, place });
        },
        room: () => this.#room,
        broken: (error) => this.broken.push(error),
      },
    });
    this.start = this.follow.started.then((start) => {
      this.follow.begin();
      return start;
    });
  }

  /** The numbers of its events, in the order in which they came. */
  get numbers(): number[] {
    return this.told.items.map(({ event }) => event.message.n as number);
  }

  /** What its client has now. */
  get cursor(): Cursor {
    return parseCursor(this.told.items.at(-1)!.place!)!;
  }

  /** From the next event on there is no room, until {@link resume}. */
  stall(): void {
    this.#room = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  resume(): void {
    this.#room = undefined;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.follow.close();
  }
}

let served: ServedBus;
let topics = 0;

beforeAll(async () => {
  served = await startBus();
});

afterAll(async () => {
  await served?.[Symbol.asyncDispose]();
});

/** Topics of a test of its own. */
const fresh = (count: number) => Array.from({ length: count }, () => `t${topics++}`);
const filtersOf = (names: readonly string[]) => names.map((name) => `-.${name}`);
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);
const present = () => served.bus.horizon('global');

/** Stores {n: from + 1}, … in turn on each of some topics. */
async function store(names: readonly string[], count: number, from = 0, more: object = {}): Promise<void> {
  for (let n = from + 1; n <= from + count; n++) {
    await served.bus.publish(draftOf(names[n % names.length]!, { n, ...more }));
  }
}

describe('following several topics', () => {
  it('brings what was missed and what comes in the order of the stream, and goes on from any of its places', async () => {
    const names = fresh(3);
    const since = await present();
    await store(names, 6);
    const side = new Side(served);
    using one = new Following(side, filtersOf(names), since);
    expect(await one.start).toEqual({ place: `${since.epoch}-${since.sequence}`, recovered: true });
    await one.told.until(6);
    await store(names, 6, 6);
    await one.told.until(12);
    expect(one.numbers).toEqual(upTo(12));
    for (const [i, { place }] of one.told.items.entries()) {
      using again = new Following(new Side(served), filtersOf(names), parseCursor(place!));
      expect(await again.start).toEqual({ place, recovered: true });
      await again.told.until(11 - i);
      expect(again.numbers).toEqual(upTo(12).slice(i + 1));
    }
  });

  it('begins with what comes now where there is no cursor', async () => {
    const names = fresh(2);
    await store(names, 4);
    using one = new Following(new Side(served), filtersOf(names));
    expect(await one.start).toMatchObject({ recovered: true });
    await store(names, 4, 4);
    await one.told.until(4);
    expect(one.numbers).toEqual([5, 6, 7, 8]);
  });

  it('crosses the ends of pages without loss or repeat, whatever the topics differ in', async () => {
    const [busy, quiet, long] = fresh(3) as [string, string, string];
    const since = await present();
    let n = 0;
    const body = 'x'.repeat(30_000);
    for (let i = 0; i < 520; i++) {
      await store([busy], 1, n++);
      if (i % 200 === 100) await store([quiet], 1, n++);
      // A page of these holds few.
      if (i % 26 === 0) await store([long], 1, n++, { body });
    }
    const side = new Side(served);
    using one = new Following(side, filtersOf([busy, quiet, long]), since);
    await one.told.until(n);
    expect(one.numbers).toEqual(upTo(n));
    expect(side.readings).toBeGreaterThan(5);
    await store([quiet, busy], 2, n);
    await one.told.until(n + 2);
    expect(one.numbers).toEqual(upTo(n + 2));
  });

  it('brings once what is both in the past and live, and what several filters take', async () => {
    const [name] = fresh(1) as [string];
    const names = [`${name}/a/b`, `${name}/a/c`];
    const since = await present();
    await store(names, 300);
    const side = new Side(served);
    // Listens already: what is stored now is in its window, and in the store.
    using early = new Following(side, [`-.${name}.>`, `-.${name}.a.*`]);
    await early.start;
    const storing = store(names, 400, 300);
    const late = upTo(5).map(() => new Following(side, [`-.${name}.>`, `-.${name}.*.b`], since));
    await storing;
    await early.told.until(400);
    expect(early.numbers).toEqual(upTo(700).slice(300));
    for (const one of late) {
      using following = one;
      await following.told.until(700);
      expect(following.numbers).toEqual(upTo(700));
    }
  });

  it('waits for a reader without room, and loses nothing that happens meanwhile', async () => {
    const names = fresh(2);
    const since = await present();
    await store(names, 20);
    const side = new Side(served);
    using one = new Following(side, filtersOf(names), since);
    one.taken = ({ event }) => {
      if (event.message.n === 5) one.stall();
    };
    await one.told.until(5);
    // More than a window holds: what the reader has not taken is not in it any more.
    for (let n = 20; n < 2_620; n += 100) {
      const all = Array.from({ length: 100 }, (_, i) => n + i + 1);
      await Promise.all(all.map((m) => served.bus.publish(draftOf(names[m % 2]!, { n: m }))));
    }
    expect(one.numbers).toEqual(upTo(5));
    one.resume();
    await one.told.until(2_620);
    const places = one.told.items.map(({ event }) => (event as { position: Cursor }).position.sequence);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(new Set(one.numbers).size).toBe(2_620);
    expect(one.broken).toEqual([]);
  });

  it.each([1, 2, 150, 256, 257, 300])('leaves nothing open when it is closed with event %i', async (n) => {
    const names = fresh(2);
    const since = await present();
    await store(names, 300);
    const side = new Side(served);
    using other = new Following(side, filtersOf(names));
    await other.start;
    const beside = side.open;
    using one = new Following(side, filtersOf(names), since);
    one.taken = ({ event }) => {
      if (event.message.n === n) one.follow.close();
    };
    await one.told.until(n);
    await eventually(() => side.open === beside);
    await store(names, 2, 300);
    await other.told.until(2);
    expect(one.numbers).toEqual(upTo(n));
    other.follow.close();
    expect(side.hub.size).toBe(0);
    expect(side.open).toBe(0);
  });

  it('leaves nothing open when it is closed before it has begun', async () => {
    const names = fresh(2);
    const since = await present();
    await store(names, 10);
    const side = new Side(served);
    const one = new Following(side, filtersOf(names), since);
    one.start.catch(() => {});
    one.follow.close();
    await one.start.catch(() => {});
    await eventually(() => side.open === 0 && side.hub.size === 0);
    expect(one.numbers).toEqual([]);
  });
});

describe('a stream that is not the one of a cursor', () => {
  /** Says that the stream was restored, as the registry would. */
  async function raiseEpoch({ bus, nc }: ServedBus): Promise<string> {
    const bucket = await new Kvm(nc).open(BUCKETS.streams);
    const record = (await bucket.get(STREAMS.global.name))!.json<StreamRecord>();
    const generation = record.generation + 1;
    const epoch = makeEpoch(Date.parse(record.created), generation);
    await bucket.put(STREAMS.global.name, JSON.stringify({ ...record, epoch, generation }));
    await eventually(async () => (await bus.horizon('global')).epoch === epoch);
    return epoch;
  }
  const publish = ({ bus }: ServedBus, name: string, n: number) => bus.publish(draftOf(name, { n }));

  it('made anew: says that history is lost, and goes on with all that there is', async () => {
    await using there = await startBus();
    await publish(there, 'a', 1);
    await publish(there, 'b', 2);
    const since = await there.bus.horizon('global');
    await there.bus.jsm.streams.delete(STREAMS.global.name);
    await prepareBus(there.nats);
    await eventually(async () => (await there.bus.horizon('global')).epoch !== since.epoch);
    for (const n of [3, 4, 5]) await publish(there, n % 2 ? 'a' : 'b', n);
    const { epoch } = await there.bus.horizon('global');
    const cursors: Cursor[] = [
      since,
      { ...since, beyond: new Map([['-.a', since.sequence + 5]]) },
      { epoch: '', sequence: 0 },
      { epoch, sequence: 1_000 },
      { epoch, sequence: 0, beyond: new Map([['-.b', 1_000]]) },
    ];
    for (const cursor of cursors) {
      using one = new Following(new Side(there), ['-.a', '-.b'], cursor);
      expect(await one.start).toEqual({ place: `${epoch}-0`, recovered: false });
      await one.told.until(3);
      expect(one.numbers).toEqual([3, 4, 5]);
      expect(one.cursor.epoch).toBe(epoch);
    }
  });

  it('restored while it is followed: goes on, and says to who comes back that history is lost', async () => {
    await using there = await startBus();
    const side = new Side(there);
    using one = new Following(side, ['-.a', '-.b']);
    await one.start;
    await publish(there, 'a', 1);
    await publish(there, 'b', 2);
    await one.told.until(2);
    const before = one.cursor;
    const epoch = await raiseEpoch(there);
    await publish(there, 'a', 3);
    await publish(there, 'b', 4);
    await one.told.until(4);
    expect(one.numbers).toEqual([1, 2, 3, 4]);
    expect(one.cursor.epoch).toBe(epoch);
    using late = new Following(side, ['-.a', '-.b'], before);
    expect(await late.start).toMatchObject({ recovered: false });
    await late.told.until(4);
    using again = new Following(side, ['-.a', '-.b'], one.cursor);
    expect(await again.start).toMatchObject({ recovered: true });
    await publish(there, 'b', 5);
    await Promise.all([one.told.until(5), late.told.until(5), again.told.until(1)]);
    expect(one.numbers).toEqual([1, 2, 3, 4, 5]);
    expect(late.numbers).toEqual([1, 2, 3, 4, 5]);
    expect(again.numbers).toEqual([5]);
    expect(one.broken).toEqual([]);
  });

  it('restored while somebody catches up: ends for it, so that it comes back and is told', async () => {
    await using there = await startBus();
    const since = await there.bus.horizon('global');
    // More than a page: the rest is read when the stream is another one.
    await Promise.all(upTo(1_200).map((n) => publish(there, n % 2 ? 'a' : 'b', n)));
    const side = new Side(there);
    using one = new Following(side, ['-.a', '-.b'], since);
    one.taken = () => {
      if (one.numbers.length === 10) one.stall();
    };
    await one.told.until(10);
    await raiseEpoch(there);
    one.resume();
    await eventually(() => one.broken.length > 0);
    expect(one.broken).toMatchObject([{ code: 'unavailable' }]);
    expect(side.hub.size).toBe(0);
    using again = new Following(side, ['-.a', '-.b'], one.cursor);
    expect(await again.start).toMatchObject({ recovered: false });
    await again.told.until(1_200);
    expect(new Set(again.numbers).size).toBe(1_200);
  });
});
