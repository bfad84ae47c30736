import { describe, expect, it } from '@jest/globals';
import { cpuTime } from '@posthorn/testing';
import fc from 'fast-check';
import { Budget, Exhausted } from './budget.js';
import { LinearRegExp } from './linear-regexp.js';

const unlimited = () => {
  const budget = new Budget();
  budget.refill(Number.POSITIVE_INFINITY);
  return budget;
};
const matches = (pattern: string, text: string) => new LinearRegExp(pattern).test(text, unlimited());

const atom = fc.constantFrom(
  ...[
    'a',
    'b',
    '.',
    '\\s',
    '\\S',
    '\\d',
    '\\w',
    '\\b',
    '[ab]',
    '[^a]',
    '[\\s-]',
    '[.]',
    '[^\\s]',
    '\\.',
    '\\/',
  ],
  ...['\\u{1F600}', '\\u00e9', '\\p{L}', '\\v', '\\cJ', '[]', '[^]', '[a-z0-9_-]', '\\]', '[\\]a]', '$', '^'],
);
const pattern = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { depthSize: 'small' },
    atom,
    fc.array(tie('node'), { maxLength: 3 }).map((parts) => parts.join('')),
    fc.tuple(tie('node'), tie('node')).map(([a, b]) => `(?:${a}|${b})`),
    fc.tuple(tie('node'), fc.constantFrom('*', '+', '?', '{2}', '{1,3}', '*?')).map(([a, q]) => `(${a})${q}`),
  ),
})).node;
const text = fc
  .array(fc.constantFrom(...'abz09_-./] \t\v\n\r\u00a0\u2028\ufeff\u00e9😀'), { maxLength: 12 })
  .map((parts) => parts.join(''));

describe('regular expressions of JSON Schema', () => {
  it('match what ECMAScript with the flag u matches', () => {
    fc.assert(
      fc.property(pattern, text, (source, subject) => {
        expect(matches(source, subject)).toBe(new RegExp(source, 'u').test(subject));
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    ['(?=a)b', /look-around/],
    ['(a)\\1', /back-references/],
    ['(?i)a', /ECMA-262/],
    ['\\Aa', /ECMA-262/],
    ['(', /ECMA-262/],
    ['[\\S]', /\\S in a class/],
    ['\\ud83d\\ude00', /surrogate/],
    ['(?:a{1000}){1000}', /look-around/],
    ['a{1000}'.repeat(3), /2000 times/],
  ])('%s is refused', (source, reason) => {
    expect(() => new LinearRegExp(source)).toThrow(reason);
  });

  it.each(['^(a+)+$', '^(a|aa)+$', '(x+x+)+y', '^(\\w+\\s?)*$', '^(a?){50}a{50}$'])(
    '%s takes linear time',
    (source) => {
      const hostile = new LinearRegExp(source);
      const spent = (length: number) => cpuTime(() => hostile.test(`${'a'.repeat(length)}!`, unlimited()));
      const control = spent(2_000);
      expect(spent(20_000)).toBeLessThan(100 * control + 500);
    },
  );

  it('of more than 500 characters are refused', () => {
    expect(() => new LinearRegExp('a'.repeat(501))).toThrow(/500 characters/);
  });

  it('are stopped before a text that could make them build an automaton for long', () => {
    const budget = new Budget();
    budget.refill(1_000_000);
    const hostile = new LinearRegExp('(?:a|b)*a(?:a|b){900}[^ab]');
    expect(() => hostile.test('ab'.repeat(10_000), budget)).toThrow(Exhausted);
  });

  it('pay little for a long text under a plain expression', () => {
    const budget = new Budget();
    budget.refill(2_000_000);
    const plain = new LinearRegExp('^[A-Za-z0-9+/]+={0,2}$');
    for (let i = 0; i < 10; i++) expect(plain.test('QUJD'.repeat(15_000), budget)).toBe(true);
  });
});
