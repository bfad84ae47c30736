import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { draftOf, type ServedBus, startBus } from '@posthorn/testing';

/** How far apart the two halves of a stream are, in milliseconds: what lies between is the moment in question. */
const PAUSE = 200;

describe('recently', () => {
  let bus: ServedBus;
  beforeEach(async () => {
    bus = await startBus({ audiences: ['acme'] });
  });
  afterEach(async () => {
    await bus[Symbol.asyncDispose]();
  });
  const store = async (count: number) => {
    for (let i = 0; i < count; i++) await bus.bus.publish(draftOf('news', { i }));
  };

  it.each<[before: number, after: number]>([
    [0, 0],
    [0, 5],
    [5, 0],
    [1, 1],
    [40, 3],
    [3, 40],
    [17, 16],
  ])('finds the place between %i old events and %i new ones', async (before, after) => {
    await store(before);
    await sleep(PAUSE / 2);
    const between = Date.now();
    await sleep(PAUSE / 2);
    await store(after);
    const { sequence } = await bus.bus.recently('global', Date.now() - between);
    expect(sequence).toBe(before);
  });

  it('begins where the stream does when everything is recent, and is asked once in a second', async () => {
    await store(10);
    expect((await bus.bus.recently('global', 60_000)).sequence).toBe(0);
    await bus.bus.jsm.streams.purge('PH_GLOBAL', { keep: 4 });
    expect((await bus.bus.recently('global', 60_001)).sequence).toBe(6);
    await store(1);
    const [one, other] = await Promise.all([bus.bus.recently('global', 0), bus.bus.recently('global', 0)]);
    expect(one).toEqual(other);
  });
});
