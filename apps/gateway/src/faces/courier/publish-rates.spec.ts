import { describe, expect, it } from '@jest/globals';
import { BROADCAST, type Principal, parseTopic, principalOfClaims } from '@posthorn/contracts';
import { Buckets } from '../../http/buckets.js';
import { PublishRates } from './publish-rates.js';

const LIMITS = { publishRate: 10, publishBurst: 20, broadcastRate: 1, broadcastBurst: 3 };
const TOPIC = parseTopic('a');

function principal(sub: string, more: object = {}): Principal {
  return principalOfClaims({ aud: 'acme', sub, ...more });
}

function rates() {
  let now = 0;
  const limiter = new PublishRates(LIMITS, () => now);
  return {
    pass: (ms: number) => {
      now += ms;
    },
    /** How many of so many publishes are taken. */
    taken(who: Principal, times: number, topic = TOPIC): number {
      let count = 0;
      for (let i = 0; i < times; i++) {
        try {
          limiter.take(who, topic);
          count++;
        } catch (error) {
          expect(error).toMatchObject({ code: 'rate_limited', retryAfter: expect.any(Number) });
        }
      }
      return count;
    },
  };
}

describe('publishes over REST', () => {
  it('are limited for each user, at once and on average', () => {
    const { taken, pass } = rates();
    expect(taken(principal('ann'), 50)).toBe(20);
    pass(1_000);
    expect(taken(principal('ann'), 50)).toBe(10);
    expect(taken(principal('bob'), 50)).toBe(20);
    expect(taken(principal('ann', { aud: 'other' }), 50)).toBe(20);
  });

  it('have their own limit for broadcasts, by whatever call they come', () => {
    const { taken } = rates();
    expect(taken(principal('ann'), 50, parseTopic(BROADCAST))).toBe(3);
    expect(taken(principal('ann'), 50)).toBe(20);
  });

  it.each(['service', 'admin'])('of a %s are not limited', (role) => {
    expect(rates().taken(principal('svc', { role }), 1_000)).toBe(1_000);
  });
});

describe('buckets', () => {
  it('give no more over any time than one bucket of each key would', () => {
    const buckets = new Buckets(10, 20);
    let taken = 0;
    for (let now = 0; now <= 60_000; now += 7) if (buckets.take('ann', now) === 0) taken++;
    expect(taken).toBeLessThanOrEqual(20 + 600);
    expect(taken).toBeGreaterThanOrEqual(20 + 598);
  });

  it('say when there is one again', () => {
    const buckets = new Buckets(10, 1);
    buckets.take('ann', 0);
    expect(buckets.take('ann', 0)).toBeCloseTo(0.1);
    expect(buckets.take('ann', 100)).toBe(0);
  });

  it('are forgotten once they are full again', () => {
    const buckets = new Buckets(10, 20);
    for (let i = 0; i < 100_000; i++) buckets.take(`user-${i}`, i);
    expect(buckets.size).toBeLessThanOrEqual(4_001);
  });
});
