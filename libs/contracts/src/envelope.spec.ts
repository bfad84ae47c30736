import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type IdempotencyScope, messageId } from './envelope.js';

describe('a message id', () => {
  const part = fc.oneof(
    fc.constantFrom('', 'a', 'b', ',', '"', '\\', 'a","b', '\ud800', 'null'),
    fc.string(),
  );
  const scope: fc.Arbitrary<IdempotencyScope> = fc.record({
    audience: part,
    scope: fc.constantFrom('local' as const, 'global' as const),
    instance: fc.option(part),
    path: part,
    principal: part,
    key: part,
  });

  it('is the same for the same publish, and another for any other', () => {
    fc.assert(
      fc.property(scope, scope, (a, b) => {
        expect(messageId({ ...a })).toBe(messageId(a));
        const same = JSON.stringify(Object.entries(a)) === JSON.stringify(Object.entries(b));
        expect(messageId(a) === messageId(b)).toBe(same);
      }),
    );
  });

  it.each(['audience', 'scope', 'instance', 'path', 'principal', 'key'] as const)('depends on %s', (name) => {
    const one: IdempotencyScope = {
      audience: 'a',
      scope: 'global',
      instance: null,
      path: '-.t',
      principal: 'p',
      key: 'k',
    };
    expect(messageId({ ...one, [name]: 'other' })).not.toBe(messageId(one));
  });

  it('holds nothing of what the caller gave', () => {
    const id = messageId({
      audience: 'acme',
      scope: 'global',
      instance: null,
      path: '-.t',
      principal: 'p',
      key: 'k\r\nNats-Rollup: all',
    });
    expect(id).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });
});
