import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from '@jest/globals';
import { type Flushable, Turn } from './turn.js';

/** When what was published, as `written` is told. */
let told: string[];
/** Milliseconds, moved by what the tests flush. */
let clock: number;
let turn: Turn;

beforeEach(() => {
  told = [];
  clock = 0;
  turn = new Turn({ now: () => clock, written: (published) => void told.push(published) });
});

/** Something to be written, which takes a time. */
const taking = (ms: number, log: string[] = [], name = ''): Flushable => ({
  flush: () => {
    log.push(name);
    clock += ms;
  },
});

/** A topic's batch that hands a connection something to write. */
const batchFor = (outbox: Flushable): Flushable => ({ flush: () => turn.outbox(outbox) });

describe('Turn', () => {
  it('flushes batches before outboxes, at the end of the turn', async () => {
    const log: string[] = [];
    turn.outbox(taking(0, log, 'outbox'));
    turn.batch(taking(0, log, 'batch'));
    expect(log).toEqual([]);
    await nextTurn();
    expect(log).toEqual(['batch', 'outbox']);
  });

  it('tells when the first event was published of all that is written at once', async () => {
    turn.batch(batchFor(taking(0)));
    turn.handedOver('first');
    turn.handedOver('second');
    await nextTurn();
    expect(told).toEqual(['first']);
  });

  it('tells nothing of an event that nobody gets', async () => {
    turn.handedOver('for nobody');
    turn.batch(batchFor(taking(0)));
    await nextTurn();
    expect(told).toEqual([]);
  });

  it('tells nothing twice', async () => {
    turn.batch(batchFor(taking(0)));
    turn.handedOver('first');
    await nextTurn();
    turn.batch(batchFor(taking(0)));
    await nextTurn();
    expect(told).toEqual(['first']);
  });

  it('tells of a write-out that takes several slices once its last outbox is written, and of the next one by itself', async () => {
    const log: string[] = [];
    // The clock is read after every 16th outbox, and a slice is 9 ms.
    for (let n = 0; n < 40; n++) turn.outbox(taking(1, log));
    turn.handedOver('long ago');
    await nextTurn();
    expect([log.length, told]).toEqual([16, []]);
    turn.outbox(taking(0, log));
    turn.handedOver('just now');
    await nextTurn();
    expect([log.length, told]).toEqual([32, []]);
    await nextTurn();
    expect([log.length, told]).toEqual([40, ['long ago']]);
    // The flush took 40 ms: the next one waits for what belongs with it.
    clock += 5;
    await nextTurn();
    expect([log.length, told]).toEqual([41, ['long ago', 'just now']]);
  });
});
