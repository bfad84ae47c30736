import { describe, expect, it } from '@jest/globals';
import { Bucket, Strikes } from './limits.js';

describe('Bucket', () => {
  it('gives its burst at once, then its rate', () => {
    const bucket = new Bucket(10, 3, 0);
    expect([bucket.take(0), bucket.take(0), bucket.take(0)]).toEqual([0, 0, 0]);
    expect(bucket.take(0)).toBeCloseTo(0.1);
    expect(bucket.take(100)).toBe(0);
    expect(bucket.take(100)).toBeGreaterThan(0);
  });

  it('never holds more than its burst, however long nobody asks', () => {
    const bucket = new Bucket(100, 2, 0);
    const taken = Array.from({ length: 5 }, () => bucket.take(3_600_000));
    expect(taken.filter((wait) => wait === 0)).toHaveLength(2);
  });

  it('lends what it does not have, and says when it will be paid back', () => {
    const bucket = new Bucket(10, 2, 0);
    const debts = Array.from({ length: 5 }, () => bucket.overdraw(0));
    expect(debts.map((seconds) => Number(seconds.toFixed(2)))).toEqual([0, 0, 0.1, 0.2, 0.3]);
    expect(bucket.take(300)).toBeGreaterThan(0);
    expect(bucket.take(400)).toBe(0);
  });

  it('gives nothing away when the clock goes back', () => {
    const bucket = new Bucket(1, 1, 10_000);
    expect(bucket.take(10_000)).toBe(0);
    expect(bucket.take(5_000)).toBeGreaterThan(0);
  });
});

describe('Strikes', () => {
  it('bears the limit within a minute, and one more is too many', () => {
    const strikes = new Strikes(20);
    const verdicts = Array.from({ length: 21 }, (_, i) => strikes.add(i * 1_000));
    expect(verdicts.slice(0, 20)).not.toContain(true);
    expect(verdicts[20]).toBe(true);
  });

  it('forgets what is more than a minute old', () => {
    const strikes = new Strikes(1);
    expect(strikes.add(0)).toBe(false);
    expect(strikes.add(60_000)).toBe(false);
    expect(strikes.add(61_000)).toBe(true);
  });
});
