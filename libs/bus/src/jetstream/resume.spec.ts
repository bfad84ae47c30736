import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Cursor, type Position, STREAMS } from '@posthorn/contracts';
import {
  Collected,
  draftOf,
  eventually,
  openBus,
  prepareBus,
  type ServedBus,
  startBus,
  startTcpProxy,
  type TestBus,
} from '@posthorn/testing';
import type { BusEvent } from '../port.js';
import { judgePosition } from './resume.js';

const interestIn = (filter: string) => ({ audience: 'acme', scope: 'global', filter }) as const;

const publish = ({ bus }: TestBus, topic: string, n: number) => bus.publish(draftOf(topic, { n }));

const store = async (process: TestBus, topic: string, count: number) =>
  (await Promise.all(Array.from({ length: count }, (_, n) => publish(process, topic, n)))).map(
    ({ position }) => position!.sequence,
  );
const sequencesOf = (events: readonly BusEvent[]) => events.map(({ position }) => position.sequence);

describe('a position is recovered', () => {
  const stream = { epoch: 'e', first: 10, last: 20 };
  it.each([
    ['at the end', 'e', 20, true],
    ['in the middle', 'e', 15, true],
    ['where the next one is the oldest that is kept', 'e', 9, true],
    ['not where the next one is no longer kept', 'e', 8, false],
    ['not from the beginning of a stream that has dropped events', 'e', 0, false],
    ['not beyond the last', 'e', 21, false],
    ['not of another epoch', 'f', 15, false],
  ])('%s', (_, epoch, sequence, recovered) => {
    expect(judgePosition({ epoch, sequence }, stream)).toBe(recovered);
  });

  it.each([
    ['from the beginning of an empty stream', { first: 0, last: 0 }, 0, true],
    ['from the beginning of a stream that has dropped nothing', { first: 1, last: 5 }, 0, true],
    ['at the end of a stream that was emptied', { first: 21, last: 20 }, 20, true],
    ['not before the end of a stream that was emptied', { first: 21, last: 20 }, 19, false],
  ])('%s', (_, extent, sequence, recovered) => {
    expect(judgePosition({ epoch: 'e', sequence }, { epoch: 'e', ...extent })).toBe(recovered);
  });

  it.each([
    ['where the next event is within the retention', { oldest: 1_000, next: 1_000 }, true],
    ['not where the next event is older', { oldest: 1_000, next: 999 }, false],
    ['where nothing came after it, however old it is', { oldest: 1_000, next: undefined }, true],
  ])('%s', (_, retention, recovered) => {
    expect(judgePosition({ epoch: 'e', sequence: 15 }, stream, retention)).toBe(recovered);
  });
});

describe('resuming', () => {
  let process: ServedBus;
  beforeAll(async () => {
    process = await startBus({ topics: [{ topic: 'brief', audience: 'acme', retention: 1 }] });
  });
  afterAll(async () => process[Symbol.asyncDispose]());

  it('gives what came meanwhile, then what comes, and says where it begins before the first event', async () => {
    const before = await process.bus.horizon('global');
    const stored = await store(process, 'meanwhile', 100);
    const order: string[] = [];
    const heard = new Collected<BusEvent>();
    const resumption = process.bus.resume(interestIn('-.meanwhile'), before, (event) => {
      order.push('event');
      heard.add(event);
    });
    void resumption.started.then(() => order.push('started'));
    expect(await resumption.started).toEqual({ position: before, recovered: true });
    await resumption.caughtUp;
    expect(order[0]).toBe('started');
    expect(sequencesOf(heard.items)).toEqual(stored);
    stored.push(...(await store(process, 'meanwhile', 100)));
    expect(sequencesOf(await heard.until(200))).toEqual(stored);
    resumption.close();
  });

  it('from a position of another epoch begins with the oldest that is kept, and says so', async () => {
    const stored = await store(process, 'renewed', 3);
    const heard = new Collected<BusEvent>();
    const resumption = process.bus.resume(
      interestIn('-.renewed'),
      { epoch: 'other', sequence: stored[1]! },
      heard.add,
    );
    expect(await resumption.started).toMatchObject({ recovered: false, position: { sequence: 0 } });
    expect(sequencesOf(await heard.until(3))).toEqual(stored);
    resumption.close();
  });

  it('from a cursor leaves out what was delivered beyond its position, of each topic', async () => {
    const before = await process.bus.horizon('global');
    const [a, b] = [await store(process, 'cursor/a', 5), await store(process, 'cursor/b', 5)];
    const cursor: Cursor = { ...before, beyond: new Map([['-.cursor.a', a[2]!]]) };
    const heard = new Collected<BusEvent>();
    const pattern = process.bus.resume(interestIn('-.cursor.*'), cursor, heard.add);
    await pattern.caughtUp;
    expect(sequencesOf(heard.items)).toEqual([...a.slice(3), ...b]);
    pattern.close();
    const alone = new Collected<BusEvent>();
    const topic = process.bus.resume(interestIn('-.cursor.a'), cursor, alone.add);
    expect(await topic.started).toMatchObject({ position: { sequence: a[2] }, recovered: true });
    await topic.caughtUp;
    expect(sequencesOf(alone.items)).toEqual(a.slice(3));
    topic.close();
  });

  it('reads no further back than the retention of the topic, also through a pattern', async () => {
    const before = await process.bus.horizon('global');
    await store(process, 'brief', 2);
    await eventually(async () => !(await judged('-.brief', before)).recovered);
    const young = await store(process, 'brief', 2);
    for (const filter of ['-.brief', '-.*']) {
      const heard = new Collected<BusEvent>();
      const resumption = process.bus.resume(interestIn(filter), before, heard.add);
      expect(await resumption.started).toMatchObject({ recovered: false });
      await resumption.caughtUp;
      expect(sequencesOf(heard.items.filter(({ path }) => path === '-.brief'))).toEqual(young);
      resumption.close();
    }
    expect(await judged('-.brief', { ...before, sequence: young[0]! - 1 })).toMatchObject({
      recovered: true,
    });
    expect(await judged('-.unkept', before)).toMatchObject({ recovered: true });
  });

  async function judged(filter: string, since: Position) {
    const history = await process.bus.history(interestIn(filter), since, await process.bus.horizon('global'));
    history.close();
    return history;
  }

  it('keeps up with a slow handler: what does not fit into memory is read as history too', async () => {
    const before = await process.bus.horizon('global');
    const stored = await store(process, 'slow', 200);
    const heard = new Collected<BusEvent>();
    let free = () => {};
    const gate = new Promise<void>((resolve) => {
      free = resolve;
    });
    const resumption = process.bus.resume(interestIn('-.slow'), before, async (event) => {
      heard.add(event);
      if (heard.items.length === 50) await gate;
    });
    await heard.until(50);
    for (let i = 0; i < 10; i++) stored.push(...(await store(process, 'slow', 500)));
    free();
    await resumption.caughtUp;
    stored.push(...(await store(process, 'slow', 10)));
    expect(sequencesOf(await heard.until(stored.length))).toEqual(stored);
    resumption.close();
  });

  it('that is closed in the middle delivers nothing more, and another goes on from there', async () => {
    const before = await process.bus.horizon('global');
    const stored = await store(process, 'halves', 300);
    const heard = new Collected<BusEvent>();
    const first = process.bus.resume(interestIn('-.halves'), before, (event) => {
      heard.add(event);
      if (heard.items.length === 100) first.close();
    });
    await first.caughtUp;
    expect(heard.items.length).toBe(100);
    const second = process.bus.resume(interestIn('-.halves'), heard.items.at(-1)!.position, heard.add);
    expect(sequencesOf(await heard.until(300))).toEqual(stored);
    second.close();
  });

  it('is unavailable where the stream is replaced while it is read', async () => {
    await using one = await startBus();
    await store(one, 'ticks', 400);
    const { epoch } = await one.bus.horizon('global');
    const heard = new Collected<BusEvent>();
    const resumption = one.bus.resume(interestIn('-.ticks'), { epoch, sequence: 0 }, async (event) => {
      heard.add(event);
      if (heard.items.length !== 40) return;
      await one.bus.jsm.streams.delete(STREAMS.global.name);
      await prepareBus(one.nats);
      await eventually(async () => (await one.bus.horizon('global')).epoch !== epoch);
    });
    await expect(resumption.caughtUp).rejects.toMatchObject({ code: 'unavailable' });
    const last = heard.items.at(-1)!.position;
    const again = one.bus.resume(interestIn('-.ticks'), last, heard.add);
    expect(await again.started).toMatchObject({ recovered: false });
    again.close();
  });

  it('is unavailable where the leader cannot be asked', async () => {
    await using one = await startBus();
    const position = await one.bus.horizon('global');
    await one.bus.jsm.streams.delete(STREAMS.global.name);
    const resumption = one.bus.resume(interestIn('-.ticks'), position, () => {});
    await expect(resumption.started).rejects.toMatchObject({ code: 'unavailable' });
    await expect(resumption.caughtUp).rejects.toMatchObject({ code: 'unavailable' });
  });
});

describe('subscribers that come and go while publishers run at full speed', () => {
  /** A client: it drops after some events, and resumes from the last one that it got. */
  async function client(
    process: TestBus,
    filter: string,
    since: Position,
    drops: number,
    isOver: (last: number) => boolean,
  ): Promise<{ events: BusEvent[]; unrecovered: number }> {
    const events: BusEvent[] = [];
    let unrecovered = 0;
    let position = since;
    for (let round = 0; round <= drops || !isOver(position.sequence); round++) {
      const wanted = round < drops ? Math.floor(Math.random() * 400) : Number.POSITIVE_INFINITY;
      let enough = () => {};
      const full = new Promise<void>((resolve) => {
        enough = resolve;
      });
      let count = 0;
      const resumption = process.bus.resume(interestIn(filter), position, (event) => {
        if (count++ > wanted) return;
        events.push(event);
        position = event.position;
        if (count > wanted || isOver(event.position.sequence)) {
          count = Number.POSITIVE_INFINITY;
          resumption.close();
          enough();
        }
      });
      const start = await resumption.started.catch(() => undefined);
      if (start && !start.recovered) unrecovered++;
      if (isOver(position.sequence)) {
        resumption.close();
        enough();
      }
      // A resumption that broke off is followed by another.
      await Promise.race([full, resumption.caughtUp.then(() => full)]).catch(() => {});
      resumption.close();
    }
    return { events, unrecovered };
  }

  it('see each event of their topic exactly once and in order, over lost connections and deletions', async () => {
    await using first = await startBus();
    const { nats } = first;
    await using link = await startTcpProxy(nats.port);
    await using second = await openBus(nats);
    const publishers = [first, second];
    await using near = await openBus(nats);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    const start = await near.bus.horizon('global');
    const topics = ['a', 'b', 'c'];
    const stored = new Map<string, number[]>(topics.map((topic) => [topic, []]));
    const deleted = new Set<number>();
    let last = Number.POSITIVE_INFINITY;

    const clients = Array.from({ length: 18 }, (_, i) =>
      client(i % 3 === 2 ? far : near, `-.${topics[i % 2]}`, start, 8, (sequence) => sequence >= last),
    );
    const deadline = Date.now() + 2_000;
    const publishing = publishers.map(async (publisher, p) => {
      for (let n = 0; Date.now() < deadline; n++) {
        await Promise.all(
          Array.from({ length: 32 }, async () => {
            const topic = topics[(n + p) % 3]!;
            const { position } = await publish(publisher, topic, n);
            stored.get(topic)!.push(position!.sequence);
          }),
        );
      }
    });
    const cutting = (async () => {
      while (Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        link.cut();
        await new Promise((resolve) => setTimeout(resolve, 50));
        link.restore();
      }
    })();
    const deleting = (async () => {
      while (Date.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        const all = stored.get('a')!;
        const victim = all[Math.floor(Math.random() * all.length)];
        if (victim === undefined || deleted.has(victim)) continue;
        deleted.add(victim);
        await near.bus.jsm.streams.deleteMessage(STREAMS.global.name, victim);
      }
    })();
    await Promise.all([...publishing, cutting, deleting]);
    const end = await near.bus.horizon('global');
    last = end.sequence + 1;
    // The first of these lies beyond all others, and a late one tells who still waits that a copy was lost.
    let over = false;
    const closing = Promise.all(clients).finally(() => {
      over = true;
    });
    const finals = (async () => {
      while (!over) {
        for (const topic of topics) await publish(first, topic, -1);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    const results = await closing;
    await finals;

    for (const [i, { events, unrecovered }] of results.entries()) {
      const topic = topics[i % 2]!;
      const seen = sequencesOf(events).filter((sequence) => sequence <= end.sequence);
      const expected = stored.get(topic)!.sort((x, y) => x - y);
      expect(unrecovered).toBe(0);
      expect(seen).toEqual([...new Set(seen)].sort((x, y) => x - y));
      // What was deleted may have been seen before.
      expect(seen.filter((sequence) => !deleted.has(sequence))).toEqual(
        expected.filter((sequence) => !deleted.has(sequence)),
      );
    }
  }, 60_000);

  it('are told where events were dropped before they came back, and miss no other', async () => {
    await using one = await startBus();
    const start = await one.bus.horizon('global');
    const stored = await store(one, 'ticks', 300);
    const { jsm } = one.bus;
    await jsm.streams.purge(STREAMS.global.name, { seq: 100 });
    const ends = await Promise.all(
      [0, 98, 99, 200].map(async (sequence) => {
        const events: BusEvent[] = [];
        const resumption = one.bus.resume(interestIn('-.ticks'), { ...start, sequence }, (event) => {
          events.push(event);
        });
        const { recovered } = await resumption.started;
        await resumption.caughtUp;
        resumption.close();
        return { recovered, sequences: sequencesOf(events) };
      }),
    );
    expect(ends).toEqual([
      { recovered: false, sequences: stored.slice(99) },
      { recovered: false, sequences: stored.slice(99) },
      { recovered: true, sequences: stored.slice(99) },
      { recovered: true, sequences: stored.slice(200) },
    ]);
  });
});
