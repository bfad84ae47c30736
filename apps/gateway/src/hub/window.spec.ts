import { describe, expect, it } from '@jest/globals';
import type { BusEvent } from '@posthorn/bus';
import fc from 'fast-check';
import { Window, WindowBudget } from './window.js';

const at = (sequence: number, epoch = 'e') => ({ epoch, sequence });

function event(sequence: number, { path = '-.news', size = 2, epoch = 'e' } = {}): BusEvent {
  return { path, position: at(sequence, epoch), bytes: Buffer.alloc(size) } as unknown as BusEvent;
}

function windowAt(floor: number, { filter = '-.news', budget = new WindowBudget() } = {}) {
  const clock = { now: 0 };
  const window = new Window(filter, budget, () => clock.now);
  window.open(at(floor));
  const sequences = (since: number) => window.after(at(since)).map(({ position }) => position.sequence);
  return { window, clock, budget, sequences };
}

describe('Window', () => {
  it('holds everything since its floor, and says where it does not reach', () => {
    const { window, sequences } = windowAt(10);
    for (const sequence of [12, 15]) window.push(event(sequence));
    expect([9, 10, 12, 99].map((sequence) => window.covers(at(sequence)))).toEqual([false, true, true, true]);
    expect(sequences(10)).toEqual([12, 15]);
    expect(sequences(12)).toEqual([15]);
    expect(window.covers(at(12, 'other'))).toBe(false);
    expect(window.last).toEqual(at(15));
  });

  it('covers nothing before it is known where its feed begins', () => {
    const window = new Window('-.news', new WindowBudget());
    expect(window.covers(at(5))).toBe(false);
  });

  it('forgets what is old, by age and by number', () => {
    const { window, clock } = windowAt(0);
    window.push(event(1));
    clock.now = 31_000;
    expect(window.covers(at(0))).toBe(false);
    expect(window.covers(at(1))).toBe(true);
    for (let i = 2; i <= 1_100; i++) window.push(event(i));
    expect(window.covers(at(75))).toBe(false);
    expect(window.covers(at(76))).toBe(true);
  });

  it('gives back the bytes that it held to the budget it shares', () => {
    const budget = new WindowBudget(10_000);
    const one = windowAt(0, { budget });
    const other = windowAt(0, { budget });
    for (let i = 1; i <= 20; i++) one.window.push(event(i, { size: 100 }));
    expect(budget.exceeded).toBe(false);
    other.window.push(event(21, { size: 4_000 }));
    expect(other.window.covers(at(20))).toBe(false);
    other.window.close();
    one.window.close();
    expect(budget.used).toBe(0);
  });

  it('reads a topic of a cursor where the cursor says, and begins anew with the stream', () => {
    const { window } = windowAt(10);
    expect(window.covers({ ...at(3), beyond: new Map([['-.news', 10]]) })).toBe(true);
    window.push(event(1, { epoch: 'f' }));
    expect(window.covers(at(10))).toBe(false);
    expect(window.covers(at(0, 'f'))).toBe(true);
    expect(window.after(at(0, 'f'))).toHaveLength(1);
  });

  it('reaches no further back into a restored stream than to what it heard of it', () => {
    const { window } = windowAt(10);
    window.push(event(12));
    window.push(event(8, { epoch: 'f' }));
    expect([6, 7].map((sequence) => window.covers(at(sequence, 'f')))).toEqual([false, true]);
  });

  it('begins where its feed stands in a stream that was made anew, also while nothing comes', () => {
    const { window } = windowAt(10);
    window.reach(at(12));
    expect(window.covers(at(10))).toBe(true);
    window.reach(at(4, 'f'));
    expect([3, 4].map((sequence) => window.covers(at(sequence, 'f')))).toEqual([false, true]);
  });

  it('keeps its own copy of a payload', () => {
    const { window } = windowAt(0);
    const chunk = Buffer.from('{"a":1}');
    window.push({ ...event(1), bytes: chunk.subarray(0, 7) });
    chunk.fill(0);
    expect(Buffer.from(window.after(at(0))[0]!.bytes).toString()).toBe('{"a":1}');
  });

  it('gives whoever it covers exactly what lies beyond, whatever the order in which topics came', () => {
    const arrivals = fc.uniqueArray(
      fc.tuple(fc.integer({ min: 1, max: 3_000 }), fc.constantFrom('-.a', '-.b')),
      {
        selector: ([sequence]) => sequence,
        maxLength: 2_000,
      },
    );
    fc.assert(
      fc.property(arrivals, fc.nat(3_000), (all, since) => {
        const { window, sequences } = windowAt(0, { filter: '-.*' });
        for (const [sequence, path] of all) window.push(event(sequence, { path }));
        if (!window.covers(at(since))) return;
        const beyond = all.map(([sequence]) => sequence).filter((sequence) => sequence > since);
        expect(sequences(since)).toEqual(beyond);
      }),
      { numRuns: 50 },
    );
  });

  it('finds the first event after a cursor among however many there are', () => {
    const paths = ['-.a', '-.b'];
    fc.assert(
      fc.property(
        fc.constantFrom('-.a', '-.*'),
        fc.array(fc.boolean(), { maxLength: 60 }),
        fc.nat(60),
        fc.nat(60),
        (filter, second, base, beyond) => {
          const { window } = windowAt(0, { filter });
          second.forEach((isSecond, i) => {
            const path = filter === '-.a' ? '-.a' : paths[Number(isSecond)]!;
            window.push(event(i + 1, { path }));
          });
          const since = { ...at(base), beyond: new Map([['-.a', Math.max(base, beyond)]]) };
          expect(window.first(since)).toBe(window.after(since)[0]);
        },
      ),
    );
  });
});
