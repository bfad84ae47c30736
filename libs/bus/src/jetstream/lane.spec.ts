import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Copy, Lane } from './lane.js';

const copy = (sequence: number, previous: number): Copy<number> => ({ sequence, previous, item: sequence });

describe('a lane', () => {
  it('passes copies on in the order of the stream', () => {
    const lane = new Lane<number>(0);
    expect([copy(1, 0), copy(4, 1), copy(9, 4)].map((one) => lane.offer(one))).toEqual([
      'next',
      'next',
      'next',
    ]);
  });

  it('drops what comes twice or late', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(4, 0));
    expect([copy(4, 0), copy(3, 0), copy(5, 4)].map((one) => lane.offer(one))).toEqual([
      'late',
      'late',
      'next',
    ]);
  });

  it('holds what comes ahead of a copy that is missing, until that one comes', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    expect([copy(3, 2), copy(3, 2), copy(4, 3)].map((one) => lane.offer(one))).toEqual([
      'held',
      'late',
      'held',
    ]);
    expect(lane.release()).toEqual([]);
    expect(lane.offer(copy(2, 1))).toBe('held');
    expect(lane.release().map(({ sequence }) => sequence)).toEqual([2, 3, 4]);
    expect(lane.behind).toBe(false);
  });

  it('holds the first copy against the beginning', () => {
    expect(new Lane(10).offer({ ...copy(10, 4), item: 0 })).toBe('late');
    for (const previous of [0, 7, 10]) expect(new Lane<number>(10).offer(copy(11, previous))).toBe('next');
    expect(new Lane<number>(10).offer(copy(13, 12))).toBe('held');
  });

  it('looks twice at a copy that says nothing was before it, after others: a delete or a loss', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    expect(lane.offer(copy(5, 0))).toBe('held');
    expect(lane.learn(5)).toBe(false);
    expect(lane.release().map(({ sequence }) => sequence)).toEqual([5]);
  });

  it('looks twice at a copy that says another was before it than the last: a delete, or a forgery', () => {
    const deleted = new Lane<number>(0);
    for (const one of [copy(1, 0), copy(4, 1)]) deleted.offer(one);
    expect(deleted.offer(copy(7, 1))).toBe('held');
    deleted.learn(7);
    expect(deleted.release().map(({ sequence }) => sequence)).toEqual([7]);

    const forged = new Lane<number>(0);
    for (const one of [copy(1, 0), copy(4, 1)]) forged.offer(one);
    expect(forged.offer(copy(9_999, 1))).toBe('held');
    forged.learn(null);
    expect([forged.release(), forged.behind, forged.offer(copy(5, 4))]).toEqual([[], false, 'next']);
  });

  it('takes what is missing from the leader, one after the other', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    lane.offer(copy(9, 8));
    expect([lane.learn(5), lane.release(), lane.learn(8)]).toEqual([true, [], true]);
    expect(lane.release().map(({ sequence }) => sequence)).toEqual([9]);
  });

  it('goes on past what the leader says is gone', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    lane.offer(copy(9, 8));
    expect(lane.learn(9)).toBe(false);
    expect(lane.release().map(({ sequence }) => sequence)).toEqual([9]);
  });

  it('forgets copies that the leader does not know', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    lane.offer(copy(999, 998));
    expect(lane.learn(null)).toBe(false);
    expect([lane.release(), lane.behind]).toEqual([[], false]);
    expect(lane.offer(copy(2, 1))).toBe('next');
  });

  it('reads from the stream what did not fit behind a gap', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    for (let n = 3; n <= 6_000; n++) lane.offer(copy(n, n - 1));
    const seen = [1];
    while (lane.behind) {
      const next = lane.last + 1;
      if (lane.learn(next)) seen.push(next);
      seen.push(...lane.release().map(({ sequence }) => sequence));
    }
    expect(seen).toEqual(Array.from({ length: 6_000 }, (_, i) => i + 1));
  });

  it('is behind what somebody else heard of, until it was passed on or is gone', () => {
    const lane = new Lane<number>(0);
    lane.offer(copy(1, 0));
    lane.hearOf(4);
    expect([lane.behind, lane.learn(4), lane.behind]).toEqual([true, true, false]);
    lane.hearOf(3);
    expect(lane.behind).toBe(false);
    lane.hearOf(9);
    expect([lane.learn(null), lane.behind, lane.offer(copy(10, 4))]).toEqual([false, false, 'next']);
  });

  it('that takes the place of a forgotten one is as that one would be', () => {
    const known = 4;
    for (const next of [copy(12, known), copy(12, 11), copy(12, 0), copy(known, 0), copy(3, 0)]) {
      const kept = new Lane<number>(0);
      kept.offer(copy(known, 0));
      expect(new Lane<number>(10, true).offer(next)).toBe(kept.offer(next));
    }
  });

  it('goes back from what the stream does not have', () => {
    const lane = new Lane<number>(0);
    for (const one of [copy(1, 0), copy(4, 1), copy(9_999, 4)]) lane.offer(one);
    expect([lane.last, lane.before]).toEqual([9_999, 4]);
    lane.offer(copy(10_005, 10_004));
    lane.retract(lane.before);
    expect([lane.last, lane.behind, lane.release()]).toEqual([4, false, []]);
    expect(lane.offer(copy(6, 4))).toBe('next');
  });

  it('passes everything once and in order, whatever copies are lost, doubled or late', () => {
    const gaps = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(gaps, fc.infiniteStream(fc.integer({ min: 0, max: 99 })), (steps, dice) => {
        const stored: number[] = [];
        for (const step of steps) stored.push((stored.at(-1) ?? 0) + step);
        const roll = () => dice.next().value as number;
        const copies = stored
          .flatMap((sequence, i) =>
            Array(roll() < 20 ? 0 : roll() < 20 ? 2 : 1).fill(copy(sequence, stored[i - 1] ?? 0)),
          )
          .map((one: Copy<number>, i) => ({ one, at: i + roll() / 20 }))
          .sort((a, b) => a.at - b.at)
          .map(({ one }) => one);
        const lane = new Lane<number>(0);
        const seen: number[] = [];
        const release = () => seen.push(...lane.release().map(({ sequence }) => sequence));
        const ask = () => {
          const next = stored.find((sequence) => sequence > lane.last) ?? null;
          if (lane.learn(next)) seen.push(next!);
          release();
        };
        for (const one of copies) {
          if (lane.offer(one) === 'next') seen.push(one.sequence);
          release();
          if (lane.behind && roll() < 30) ask();
        }
        while (lane.behind) ask();
        const lastHeard = Math.max(0, ...copies.map(({ sequence }) => sequence));
        expect(seen).toEqual(stored.filter((sequence) => sequence <= lastHeard));
      }),
    );
  });
});
