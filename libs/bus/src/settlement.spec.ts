import { describe, expect, it } from '@jest/globals';
import { ProblemError } from '@posthorn/contracts';
import { BACKOFF, holdDelay, PermanentFailure, settleFailure } from './settlement.js';

describe('a failure', () => {
  it('is tried again after 1 s, 5 s, 30 s, 2 min and 10 min, then it is a dead letter', () => {
    expect(BACKOFF).toEqual([1_000, 5_000, 30_000, 120_000, 600_000]);
    const settlements = [1, 2, 3, 4, 5].map((tries) => settleFailure(new Error('away'), tries));
    expect(settlements).toEqual(BACKOFF.map((delay) => ({ kind: 'retry', delay })));
    expect(settleFailure(new Error('away'), 6)).toEqual({
      kind: 'dead',
      code: 'tries_exhausted',
      reason: 'away',
    });
  });

  it('that no other try can mend is a dead letter at once', () => {
    expect(settleFailure(new PermanentFailure('managers_unknown', 'nobody manages 7'), 1)).toEqual({
      kind: 'dead',
      code: 'managers_unknown',
      reason: 'nobody manages 7',
    });
    const errors = [
      { path: '/target', message: 'is missing' },
      { path: '', message: 'is wrong' },
    ];
    expect(settleFailure(new ProblemError('payload_invalid', 'Does not fit', { errors }), 1)).toEqual({
      kind: 'dead',
      code: 'payload_invalid',
      reason: 'Does not fit: /target is missing; / is wrong',
    });
  });

  it.each(['rate_limited', 'internal'] as const)('of code %s passes', (code) => {
    expect(settleFailure(new ProblemError(code, 'x'), 1)).toEqual({ kind: 'retry', delay: 1_000 });
  });

  it('of a service that is away is no fault of the event, however often', () => {
    for (const tries of [1, 6, 1_000]) {
      expect(settleFailure(new ProblemError('unavailable', 'x'), tries)).toEqual({ kind: 'hold' });
    }
  });

  it.each([
    ['text', 'text'],
    [undefined, 'undefined'],
    [null, 'null'],
  ])('may be anything thrown: %j', (thrown, reason) => {
    expect(settleFailure(thrown, 6)).toMatchObject({ kind: 'dead', reason });
  });
});

it('is told in text, whatever a failure without types holds', () => {
  const unspeakable = Object.create(null);
  expect(settleFailure(unspeakable, 6)).toMatchObject({
    kind: 'dead',
    reason: 'Something was thrown that has no text',
  });
  const failure = Object.assign(new PermanentFailure('x', 'y'), { code: 404, waitsFor: 7 });
  expect(settleFailure(failure, 1)).toEqual({ kind: 'dead', code: '404', reason: 'y', waitsFor: '7' });
});

describe('what is held', () => {
  it('waits twice as long each time, up to 30 s', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 2_000].map((times) => holdDelay(times))).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000,
    ]);
  });
});
