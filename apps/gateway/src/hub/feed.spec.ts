import { PassThrough } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import type { BusEvent } from '@posthorn/bus';
import { Feed } from './feed.js';
import { Outbox } from './outbox.js';
import { Turn } from './turn.js';

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
  const outbox = new Outbox({ turn, stream, limit, overflow: () => state.overflowed++ });
  return { outbox, writes, stream, state };
}

const at = (sequence: number) => ({ epoch: 'e', sequence });
const event = (sequence: number) => ({ position: at(sequence) }) as BusEvent;
const plain = { key: 'plain', encode: (e: BusEvent) => Buffer.from(`${e.position.sequence};`) };
const loud = { key: 'loud', encode: (e: BusEvent) => Buffer.from(`${e.position.sequence}!`) };

describe('Feed', () => {
  it('writes all that a turn brings to a connection at once, encoded once for all', async () => {
    const turn = new Turn();
    let encoded = 0;
    const encode = (e: BusEvent) => {
      encoded++;
      return plain.encode(e);
    };
    const feed = new Feed(turn, () => {});
    const connections = Array.from({ length: 5 }, () => connection(turn));
    for (const { outbox } of connections) feed.join(outbox, { key: 'counted', encode }).start(at(0));
    for (let i = 1; i <= 10; i++) feed.take(event(i));
    await endOfTurn();
    expect(encoded).toBe(10);
    for (const { writes } of connections) expect(writes).toEqual(['1;2;3;4;5;6;7;8;9;10;']);
  });

  it('gives a listener what was stored after its beginning, none of it twice', async () => {
    const turn = new Turn();
    const feed = new Feed(turn, () => {});
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
    const feed = new Feed(turn, () => {});
    const early = connection(turn);
    const late = connection(turn);
    const seen: number[] = [];
    feed.join(early.outbox, plain).start(at(0));
    feed.take(event(1));
    feed.join(late.outbox, plain).start(at(3));
    feed.watch((e) => seen.push(e.position.sequence)).start(at(3));
    for (const sequence of [2, 3, 4]) feed.take(event(sequence));
    await endOfTurn();
    feed.take({ position: { epoch: 'f', sequence: 1 } } as BusEvent);
    await endOfTurn();
    expect(early.writes.join('')).toBe('1;2;3;4;1;');
    expect(late.writes.join('')).toBe('4;1;');
    expect(seen).toEqual([4, 1]);
  });

  it('delivers what came before a leave and nothing after it', async () => {
    const turn = new Turn();
    let emptied = 0;
    const feed = new Feed(turn, () => emptied++);
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
    const feed = new Feed(turn, () => {});
    const a = connection(turn);
    const b = connection(turn);
    feed.join(a.outbox, plain).start(at(0));
    feed.join(b.outbox, loud).start(at(0));
    feed.take(event(1));
    await endOfTurn();
    expect([a.writes, b.writes]).toEqual([['1;'], ['1!']]);
  });

  it('holds events back from a watcher until it begins', () => {
    const feed = new Feed(new Turn(), () => {});
    const seen: number[] = [];
    const listener = feed.watch((e) => seen.push(e.position.sequence));
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
});
