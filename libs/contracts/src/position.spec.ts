import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import {
  CURSOR_LIMIT,
  type Cursor,
  formatCursor,
  formatPosition,
  furthestOf,
  makeEpoch,
  parseCursor,
  parsePosition,
  reachedBy,
} from './position.js';
import { encodePath } from './subject.js';

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

describe('a cursor', () => {
  const text = fc.string({ minLength: 1, maxLength: 8, unit: 'grapheme' });
  const paths = fc
    .tuple(fc.option(text), fc.array(text, { minLength: 1, maxLength: 3 }))
    .map(([key, segments]) => encodePath(key, segments));
  const cursors = fc
    .record({
      sequence: fc.maxSafeNat(),
      topics: fc.uniqueArray(fc.tuple(paths, fc.integer({ min: 1, max: 2 ** 40 })), {
        maxLength: 20,
        selector: ([path]) => path,
      }),
    })
    .map(({ sequence, topics }): Cursor => {
      const position = { epoch: 'abcz1', sequence: Math.min(sequence, Number.MAX_SAFE_INTEGER - 2 ** 40) };
      if (topics.length === 0) return position;
      return {
        ...position,
        beyond: new Map(topics.map(([path, steps]) => [path, position.sequence + steps])),
      };
    });

  it('leads back to its position and to each topic delivered beyond it', () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        expect(parseCursor(formatCursor(cursor))).toEqual(cursor);
      }),
    );
  });

  it('says up to where each topic was delivered', () => {
    const cursor = { epoch: 'abc', sequence: 7, beyond: new Map([['-.a', 9]]) };
    expect([reachedBy(cursor, '-.a'), reachedBy(cursor, '-.b')]).toEqual([9, 7]);
    expect([furthestOf(cursor), furthestOf({ epoch: 'e', sequence: 3 })]).toEqual([9, 3]);
    expect(formatCursor(cursor)).toBe('abc-7~2.-.a');
  });

  it('is a position where no topic lies beyond it, and each is read as the other', () => {
    fc.assert(
      fc.property(epochs, fc.maxSafeNat(), ({ created, generation }, sequence) => {
        const position = { epoch: makeEpoch(created, generation), sequence };
        expect(formatCursor(position)).toBe(formatPosition(position));
        expect(parseCursor(formatPosition(position))).toEqual(position);
      }),
    );
  });

  it('has no other spelling', () => {
    const step = fc.stringMatching(/^[0-9a-z]{0,3}$/);
    const part = fc
      .tuple(step, fc.constantFrom('-.a', '-.b', 'k.a', '=2E.a', '-', '-.', ''))
      .map((p) => p.join('.'));
    fc.assert(
      fc.property(fc.array(part, { maxLength: 3 }), (parts) => {
        const spelled = ['abc-5', ...parts].join('~');
        const cursor = parseCursor(spelled);
        if (cursor) expect(formatCursor(cursor)).toBe(spelled);
      }),
    );
  });

  it.each([
    '',
    '~',
    'abc-1~',
    'abc-1~~',
    'abc-1~1',
    'abc-1~1.',
    'abc-1~1.-',
    'abc-1~0.-.a',
    'abc-1~01.-.a',
    'abc-1~-1.-.a',
    'abc-1~A.-.a',
    'abc-1~1.-.*',
    'abc-1~1.-.>',
    'abc-1~1.-.a b',
    'abc-1~1.-.b~1.-.a',
    'abc-1~1.-.a~2.-.a',
    'abc-9007199254740991~1.-.a',
    'abc-1~zzzzzzzzzzz.-.a',
    '~1.-.a',
  ])('is not read from %j', (bad) => expect(parseCursor(bad)).toBeUndefined());

  it('holds no more topics, and is no longer, than fits into a URL', () => {
    const of = (count: number, width: number): Cursor => ({
      epoch: 'abc',
      sequence: 1,
      beyond: new Map(Array.from({ length: count }, (_, i) => [`-.${'x'.repeat(width)}${i}`, 2])),
    });
    expect(parseCursor(formatCursor(of(CURSOR_LIMIT.topics, 1)))?.beyond?.size).toBe(CURSOR_LIMIT.topics);
    expect(() => formatCursor(of(CURSOR_LIMIT.topics + 1, 1))).toThrow(RangeError);
    expect(() => formatCursor(of(100, 80))).toThrow(RangeError);
    const whole = formatCursor(of(CURSOR_LIMIT.topics, 1));
    expect(parseCursor(`${whole}~1.k.a`)).toBeUndefined();
  });

  it('holds only topics that lie beyond its position', () => {
    for (const sequence of [5, 4, 0, Number.NaN, 5.5]) {
      const cursor = { epoch: 'abc', sequence: 5, beyond: new Map([['-.a', sequence]]) };
      expect(() => formatCursor(cursor)).toThrow(RangeError);
    }
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
