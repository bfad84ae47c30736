import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { Wheel } from '../hub/wheel.js';
import { Inbound } from './inbound.js';
import { Bucket } from './limits.js';

let now: number;
beforeEach(() => {
  now = 1_000_000;
  jest.spyOn(Date, 'now').mockImplementation(() => now);
});
afterEach(() => {
  jest.restoreAllMocks();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** An inbound whose frames are taken when the test says so. */
function inbound({ rate = 1_000, burst = 1_000 } = {}) {
  const wheel = new Wheel(1_000);
  const taken: number[] = [];
  const slow: (() => void)[] = [];
  const source = {
    reading: true,
    pause: () => (source.reading = false),
    resume: () => (source.reading = true),
  };
  const frames = new Inbound<number>({
    source,
    wheel,
    pace: new Bucket(rate, burst, Date.now()),
    take: (frame) => {
      taken.push(frame);
      return frame < 0 ? new Promise<void>((resolve) => slow.push(resolve)) : undefined;
    },
  });
  return {
    frames,
    taken,
    source,
    go: () => slow.shift()?.(),
    later: (ms: number) => {
      now += ms;
      wheel.turn();
    },
  };
}

describe('Inbound', () => {
  it('takes a frame at once where nothing is slow', () => {
    const { frames, taken } = inbound();
    frames.push(1);
    frames.push(2);
    expect(taken).toEqual([1, 2]);
  });

  it('takes what comes behind a slow frame after it, in order', async () => {
    const { frames, taken, go } = inbound();
    for (const frame of [-1, 2, -3, 4]) frames.push(frame);
    expect(taken).toEqual([-1]);
    go();
    await turn();
    expect(taken).toEqual([-1, 2, -3]);
    go();
    await turn();
    expect(taken).toEqual([-1, 2, -3, 4]);
  });

  it('stops reading while too many frames wait, and reads on when there is room', async () => {
    const { frames, source, go } = inbound();
    frames.push(-1);
    for (let i = 0; i < 64; i++) frames.push(i);
    expect(source.reading).toBe(true);
    frames.push(64);
    expect(source.reading).toBe(false);
    go();
    await turn();
    expect(source.reading).toBe(true);
  });

  it('reads no faster than the pace, until the debt is paid', () => {
    const { frames, source, later } = inbound({ rate: 10, burst: 5 });
    for (let i = 0; i < 5; i++) frames.count();
    expect(source.reading).toBe(true);
    for (let i = 0; i < 30; i++) frames.count();
    expect([source.reading, frames.paused]).toEqual([false, true]);
    later(2_000);
    expect(source.reading).toBe(false);
    later(2_000);
    expect([source.reading, frames.paused]).toEqual([true, false]);
  });

  it('is finished once everything that was read is taken', async () => {
    const { frames, taken, source, go } = inbound();
    for (const frame of [-1, 2]) frames.push(frame);
    let finished = false;
    const finishing = frames.finish().then(() => {
      finished = true;
    });
    await turn();
    expect([source.reading, finished]).toEqual([false, false]);
    go();
    await finishing;
    expect([source.reading, taken]).toEqual([false, [-1, 2]]);
  });

  it('takes nothing after its end, and reads on, so that the peer can say goodbye', async () => {
    const { frames, taken, source, go } = inbound({ rate: 1, burst: 1 });
    frames.push(-1);
    frames.push(2);
    for (let i = 0; i < 5; i++) frames.count();
    frames.end();
    frames.push(3);
    go();
    await turn();
    expect([source.reading, taken]).toEqual([true, [-1]]);
  });
});
