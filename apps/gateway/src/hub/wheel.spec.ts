import { describe, expect, it } from '@jest/globals';
import { Wheel } from './wheel.js';

function wheelAt(start: number) {
  let now = start;
  const wheel = new Wheel(1_000, () => now);
  const advance = (ms: number) => {
    now += ms;
    wheel.turn();
  };
  return { wheel, advance, now: () => now };
}

describe('Wheel', () => {
  it('calls what is due within a tick, and never before its time', () => {
    const { wheel, advance } = wheelAt(10_000);
    const called: string[] = [];
    wheel.at(12_500, () => called.push('due'));
    advance(2_000);
    expect(called).toEqual([]);
    advance(1_000);
    expect(called).toEqual(['due']);
    advance(10_000);
    expect(called).toEqual(['due']);
  });

  it('calls what lies in the past at the next tick', () => {
    const { wheel, advance } = wheelAt(10_000);
    let called = 0;
    wheel.at(1, () => called++);
    advance(1_000);
    expect(called).toBe(1);
  });

  it('does not call what was cancelled', () => {
    const { wheel, advance } = wheelAt(0);
    let called = 0;
    wheel.at(3_000, () => called++).cancel();
    advance(5_000);
    expect(called).toBe(0);
  });

  it('calls everything that a long pause passed over, in the order of time', () => {
    const { wheel, advance } = wheelAt(0);
    const called: number[] = [];
    for (const at of [900_000, 5_000, 70_000]) wheel.at(at, () => called.push(at));
    advance(86_400_000);
    expect(called).toEqual([5_000, 70_000, 900_000]);
  });

  it('lets something due schedule itself again', () => {
    const { wheel, advance, now } = wheelAt(0);
    let called = 0;
    const again = () => {
      called++;
      wheel.at(now() + 1_000, again);
    };
    wheel.at(1_000, again);
    for (let i = 0; i < 5; i++) advance(1_000);
    expect(called).toBe(5);
  });
});
