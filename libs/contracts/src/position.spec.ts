import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { formatPosition, makeEpoch, parsePosition } from './position.js';

const epochs = fc.record({
  created: fc.integer({ min: 0, max: 8.64e15 }),
  generation: fc.integer({ min: 1, max: 2 ** 31 }),
});

describe('a position', () => {
  it('leads back to epoch and sequence', () => {
    fc.assert(
      fc.property(epochs, fc.maxSafeNat(), ({ created, generation }, sequence) => {
        const position = { epoch: makeEpoch(created, generation), sequence };
        expect(parsePosition(formatPosition(position))).toEqual(position);
      }),
    );
  });

  it.each([
    '',
    '-',
    '1',
    'abc-',
    '-1',
    'abc-01',
    'abc--1',
    'abc-1.5',
    'abc-1e3',
    'ABC-1',
    'abc-1 ',
    ' abc-1',
    'abc-1\n',
    'a b-1',
    'abc-9007199254740993',
    `${'a'.repeat(25)}-1`,
    'abc-99999999999999999',
  ])('is not read from %j', (bad) => expect(parsePosition(bad)).toBeUndefined());

  it('has no other spelling', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9a-z]{0,4}-[0-9]{0,18}$/), (text) => {
        const position = parsePosition(text);
        if (position) expect(formatPosition(position)).toBe(text);
      }),
    );
  });
});

describe('an epoch', () => {
  it('differs for streams created at other times, and for other generations of one stream', () => {
    fc.assert(
      fc.property(epochs, epochs, (a, b) => {
        const same = a.created === b.created && a.generation === b.generation;
        expect(makeEpoch(a.created, a.generation) === makeEpoch(b.created, b.generation)).toBe(same);
      }),
    );
  });

  it('is not made of what is no time and no count', () => {
    for (const [created, generation] of [
      [Number.NaN, 1],
      [-1, 1],
      [1, 0],
      [1, 1.5],
      [1, Number.NaN],
    ] as const) {
      expect(() => makeEpoch(created, generation)).toThrow(RangeError);
    }
  });
});
