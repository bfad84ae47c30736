import { PassThrough } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import type { BusEvent, EphemeralEvent } from '@posthorn/bus';
import type { Bus } from '@posthorn/bus/platform';
import { Peak, Tally } from '@posthorn/service';
import { Feed, type FeedEvent } from './feed.js';
import { Outbox } from './outbox.js';
import { Past } from './past.js';
import { Turn } from './turn.js';
import { WindowBudget } from './window.js';

const endOfTurn = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

function connection(turn: Turn, limit = 1_000) {
  const stream = new PassThrough({ highWaterMark: 1 });
  const writes: string[] = [];
  const write = stream.write.bind(stream);
  stream.write = ((chunk: Buffer) => {
    writes.push(chunk.toString());
    return write(chunk);
  }) as typeof stream.write;
  const state = { overflowed: 0 };
  const outbox = new Outbox({
    turn,
    stream,
    limit,
    sent: new Tally(),
    buffered: new Peak(),
    overflow: () => state.overflowed++,
  });
  return { outbox, writes, stream, state };
}

const at = (sequence: number) => ({ epoch: 'e', sequence });
const PATH = '-.news';
const event = (sequence: number, epoch = 'e') =>
  ({ path: PATH, position: { epoch, sequence }, bytes: Buffer.alloc(2) }) as unknown as BusEvent;
const signal = { path: PATH, bytes: Buffer.alloc(2) } as unknown as EphemeralEvent;
const numberOf = (e: FeedEvent) => ('position' in e ? e.position.sequence : '~');
const plain = { key: 'plain', encode: (e: FeedEvent) => Buffer.from(`${numberOf(e)};`) };
const loud = { key: 'loud', encode: (e: FeedEvent) => Buffer.from(`${numberOf(e)}!`) };

function feedOf(turn: Turn, empty = () => {}): Feed {
  const budget = new WindowBudget();
  const past = new Past({ bus: {} as Bus, audience: 'acme', filter: PATH, budget, pageRead() {} });
  const feed = new Feed({ key: PATH, filter: PATH, turn, budget, past, delivered: new Tally(), empty });
  feed.window.open(at(0));
  return feed;
}

describe('Feed', () => {
  it('writes all that a turn brings to a connection at once, encoded once for all', async () => {
    const turn = new Turn();
    let encoded = 0;
    const encode = (e: FeedEvent) => {
      encoded++;
      return plain.encode(e);
    };
    const feed = feedOf(turn);
    const connections = Array.from({ length: 5 }, () => connection(turn));
    for (const { outbox } of connections) feed.join(outbox, { key: 'counted', encode }).start(at(0));
    for (let i = 1; i <= 10; i++) feed.take(event(i));
    await endOfTurn();
    expect(encoded).toBe(10);
    for (const { writes } of connections) expect(writes).toEqual(['1;2;3;4;5;6;7;8;9;10;']);
  });

  it('gives a listener what was stored after its beginning, none of it twice', async () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const early = connection(turn);
    const late = connection(turn);
    feed.join(early.outbox, plain).start(at(0));
    const listener = feed.join(late.outbox, plain);
    feed.take(event(1));
    await endOfTurn();
    feed.take(event(2));
    feed.take(event(3));
    listener.start(at(2));
    feed.take(event(4));
    await endOfTurn();
    expect(late.writes.join('')).toBe('3;4;');
    expect(early.writes.join('')).toBe('1;2;3;4;');
  });

  it('gives a listener nothing from before its beginning, however late it comes, but all of a stream made anew', async () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const early = connection(turn);
    const late = connection(turn);
    const seen: (number | string)[] = [];
    feed.join(early.outbox, plain).start(at(0));
    feed.take(event(1));
    feed.join(late.outbox, plain).start(at(3));
    feed.watch((e) => seen.push(numberOf(e))).start(at(3));
    for (const sequence of [2, 3, 4]) feed.take(event(sequence));
    await endOfTurn();
    feed.take(event(1, 'f'));
    await endOfTurn();
    expect(early.writes.join('')).toBe('1;2;3;4;1;');
    expect(late.writes.join('')).toBe('4;1;');
    expect(seen).toEqual([4, 1]);
  });

  it('delivers what came before a leave and nothing after it', async () => {
    const turn = new Turn();
    let emptied = 0;
    const feed = feedOf(turn, () => emptied++);
    const one = connection(turn);
    const listener = feed.join(one.outbox, plain);
    listener.start(at(0));
    feed.take(event(1));
    listener.leave();
    feed.take(event(2));
    await endOfTurn();
    expect(one.writes).toEqual(['1;']);
    expect(emptied).toBe(1);
  });

  it('encodes for each kind of listener', async () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const a = connection(turn);
    const b = connection(turn);
    feed.join(a.outbox, plain).start(at(0));
    feed.join(b.outbox, loud).start(at(0));
    feed.take(event(1));
    await endOfTurn();
    expect([a.writes, b.writes]).toEqual([['1;'], ['1!']]);
  });

  it('gives ephemeral events to those who are live, and keeps none', async () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const [member, newcomer, waiting] = [connection(turn), connection(turn), connection(turn)];
    feed.join(member.outbox, plain).start(at(0));
    feed.take(event(1));
    feed.join(newcomer.outbox, plain).start(at(1));
    const late = feed.join(waiting.outbox, plain);
    feed.takeEphemeral(signal);
    late.start(at(0));
    await endOfTurn();
    const heard = [member, newcomer, waiting].map(({ writes }) => writes.join(''));
    expect(heard).toEqual(['1;~;', '~;', '1;']);
  });

  it('hands a batch over to a huge topic in rows, and to everybody once', async () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const all = Array.from({ length: 9_000 }, () => ({ got: 0 }));
    const listeners = all.map((each) => {
      const outbox = { send: (bytes: Uint8Array) => (each.got += bytes.length) } as unknown as Outbox;
      return feed.join(outbox, plain);
    });
    for (const listener of listeners) listener.start(at(0));
    feed.take(event(1));
    feed.take(event(2));
    await endOfTurn();
    for (const listener of listeners.slice(0, 5_000)) listener.leave();
    feed.take(event(3));
    await endOfTurn();
    expect(all.map(({ got }) => got)).toEqual(all.map((_, i) => (i < 5_000 ? 4 : 6)));
  });

  it('queues what a listener waits for ahead of a frame that has to come behind it', () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    const { outbox, writes } = connection(turn);
    const listener = feed.join(outbox, plain);
    listener.start(at(0));
    feed.take(event(1));
    listener.flush();
    outbox.send(Buffer.from('pong'));
    outbox.close();
    expect(writes.join('')).toBe('1;pong');
  });

  it('sends a listener away whose place the window does not reach', () => {
    const turn = new Turn();
    const feed = feedOf(turn);
    feed.watch(() => {}).start(at(0));
    for (let i = 1; i <= 1_100; i++) feed.take(event(i));
    const late = connection(turn);
    const listener = feed.join(late.outbox, plain);
    expect(listener.start(at(10))).toBe(false);
    expect(listener.start(at(1_098))).toBe(true);
  });

  it('holds events back from a watcher until it begins', () => {
    const feed = feedOf(new Turn());
    const seen: (number | string)[] = [];
    const listener = feed.watch((e) => seen.push(numberOf(e)));
    feed.take(event(1));
    feed.take(event(2));
    expect(seen).toEqual([]);
    listener.start(at(1));
    feed.take(event(3));
    expect(seen).toEqual([2, 3]);
  });
});

describe('Outbox', () => {
  it('gives up a peer that does not read, once, and writes nothing more', async () => {
    const turn = new Turn();
    const { outbox, writes, state } = connection(turn, 10);
    outbox.send(Buffer.alloc(100));
    await endOfTurn();
    for (let i = 0; i < 3; i++) {
      outbox.send(Buffer.from('more'));
      await endOfTurn();
    }
    expect(writes).toHaveLength(1);
    expect(state.overflowed).toBe(1);
  });

  it('forgets what waits where nothing may be written any more', async () => {
    const turn = new Turn();
    const { outbox, writes } = connection(turn);
    outbox.send(Buffer.from('late'));
    outbox.drop();
    outbox.send(Buffer.from('later'));
    await endOfTurn();
    expect(writes).toEqual([]);
  });

  it('writes what waits before it closes', () => {
    const turn = new Turn();
    const { outbox, writes } = connection(turn);
    outbox.send(Buffer.from('last'));
    outbox.close();
    outbox.send(Buffer.from('late'));
    expect(writes).toEqual(['last']);
  });

  it('has no room for more than half of its limit, until the peer has read', async () => {
    const turn = new Turn();
    const { outbox, stream, state } = connection(turn, 1_000);
    outbox.send(Buffer.alloc(499));
    expect(outbox.room()).toBeUndefined();
    outbox.send(Buffer.alloc(1));
    const room = outbox.room();
    expect(room).toBeDefined();
    await endOfTurn();
    stream.resume();
    await room;
    expect(outbox.room()).toBeUndefined();
    expect(state.overflowed).toBe(0);
  });

  it('listens to its stream once, however often it writes while somebody waits for room', async () => {
    const turn = new Turn();
    const { outbox, stream } = connection(turn, 100);
    outbox.send(Buffer.alloc(60));
    const room = outbox.room();
    for (let i = 0; i < 20; i++) {
      await endOfTurn();
      outbox.send(Buffer.alloc(1));
    }
    expect(stream.listenerCount('drain')).toBe(1);
    stream.resume();
    await room;
    expect(stream.listenerCount('drain')).toBe(0);
  });

  it('keeps nobody waiting for room once it is closed', async () => {
    const turn = new Turn();
    const { outbox } = connection(turn, 10);
    outbox.send(Buffer.alloc(100));
    await endOfTurn();
    const room = outbox.room();
    outbox.drop();
    await room;
    expect(outbox.room()).toBeUndefined();
  });
});

describe('Turn', () => {
  it('yields to the event loop before ten milliseconds are over, however many connections there are', async () => {
    const turn = new Turn();
    const flushed: number[] = [];
    const busy = (ms: number) => {
      const end = performance.now() + ms;
      while (performance.now() < end);
    };
    for (let i = 0; i < 200; i++) {
      const flush = () => {
        busy(0.5);
        flushed.push(i);
      };
      turn.outbox({ flush });
    }
    const gaps: number[] = [];
    for (let before = performance.now(); flushed.length < 200; ) {
      await new Promise(setImmediate);
      gaps.push(performance.now() - before);
      before = performance.now();
    }
    expect(flushed).toEqual(Array.from({ length: 200 }, (_, i) => i));
    // 100 ms of work: in one piece it would be one gap. A shared machine may stretch single slices.
    expect(gaps.filter((gap) => gap > 4).length).toBeGreaterThanOrEqual(5);
  });

  it('gathers events after a flush that took long, as long as that joins any', async () => {
    let now = 0;
    const turn = new Turn({ now: () => now });
    const flushes: number[] = [];
    const flush = () => {
      flushes.push(now);
      now += 4;
    };
    turn.batch({ flush });
    await endOfTurn();
    turn.joined();
    turn.batch({ flush });
    await endOfTurn();
    expect(flushes).toEqual([0]);
    now += 2;
    await endOfTurn();
    expect(flushes).toEqual([0, 6]);

    // Nothing has joined a batch since: after two more nobody waits.
    for (let i = 0; i < 4; i++) {
      now += 2;
      turn.batch({ flush });
      await endOfTurn();
    }
    const before = now;
    turn.batch({ flush });
    await endOfTurn();
    expect(flushes.at(-1)).toBe(before);
  });

  it('gives long work in microtasks a breath, and short work none', async () => {
    let now = 0;
    const turn = new Turn({ now: () => now });
    expect(turn.breath()).toBeUndefined();
    now = 7;
    expect(turn.breath()).toBeUndefined();
    now = 9;
    await turn.breath();
    expect(turn.breath()).toBeUndefined();
  });
});
