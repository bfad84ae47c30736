/** Regular expressions of JSON Schema (ECMA-262 with the flag `u`) in RE2's linear-time engine. */
import { RE2JS } from 're2js';
import type { Budget } from './budget.js';

const PATTERN_LIMIT = 500;
/** Repetitions (`{n}`) that a pattern may ask for, summed up: more than that takes long to compile. */
const REPETITION_LIMIT = 2_000;

/**
 * What counts as a small automaton, in states by what each holds: its table is soon complete, and a character then
 * costs a look-up. A larger one is dropped after use, before it fills the 8 MiB that the engine allows each.
 */
const SMALL_AUTOMATON = 131_072;

const SPACES = '\\t\\n\\v\\f\\r\\p{Zs}\\x{2028}\\x{2029}\\x{FEFF}';
const LINE_ENDS = '\\n\\r\\x{2028}\\x{2029}';

export class LinearRegExp {
  readonly #source: string;
  #engine: RE2JS;

  /** @throws SyntaxError that says what is wrong with the pattern. */
  constructor(pattern: string) {
    if (pattern.length > PATTERN_LIMIT) throw new SyntaxError(`is longer than ${PATTERN_LIMIT} characters`);
    if (!isEcmaScript(pattern))
      throw new SyntaxError('is not a regular expression of ECMA-262 with the flag u');
    if (repetitions(pattern) > REPETITION_LIMIT) {
      throw new SyntaxError(`repeats more than ${REPETITION_LIMIT} times`);
    }
    this.#source = toRe2(pattern);
    this.#engine = compile(this.#source);
  }

  /** Instructions of the compiled expression: what it costs in memory, and in time for each character. */
  get size(): number {
    return this.#engine.programSize();
  }

  /**
   * Whether the pattern matches anywhere in the text. Pays `budget` in units of 100 ns: what the test can cost at
   * most beforehand, less what turns out not to have been needed.
   */
  test(text: string, budget: Budget): boolean {
    const characters = text.length + 1;
    const re2 = this.#engine.re2();
    // Decided by the next character alone: no automaton is built.
    if (re2.onepass !== null) {
      budget.spend(characters);
      return this.#engine.test(text);
    }
    const most = characters * (20 + this.size * 0.4);
    budget.spend(most);
    const matches = this.#engine.test(text);
    const automaton = re2.lazyDFA;
    if (automaton === null) return matches;
    // An automaton that was dropped midway has no start state until the next search.
    const small = automaton.stateCount * (automaton.numClasses + this.size) <= SMALL_AUTOMATON;
    if (small && automaton.startStates.size > 0) budget.spend(characters - most);
    if (!small) this.#engine = compile(this.#source);
    return matches;
  }
}

function isEcmaScript(pattern: string): boolean {
  try {
    new RegExp(pattern, 'u');
    return true;
  } catch {
    return false;
  }
}

function repetitions(pattern: string): number {
  let total = 0;
  for (const [, least, most] of pattern.matchAll(/\{(\d+)(?:,(\d*))?\}/g)) total += Number(most || least);
  return total;
}

/** What means something else in RE2, written out; RE2JS translates the remaining syntax. */
function toRe2(pattern: string): string {
  let inClass = false;
  const written = pattern.replace(/\\u[dD][89abAB]|\\[\s\S]|\[\^?|\]|\./gu, (token) => {
    if (token.length > 2 && token.startsWith('\\u'))
      throw new SyntaxError('writes a surrogate: write \\u{…}');
    if (token === '\\s') return inClass ? SPACES : `[${SPACES}]`;
    if (token === '\\S') {
      if (inClass) throw new SyntaxError('has \\S in a class, which the linear-time engine lacks');
      return `[^${SPACES}]`;
    }
    if (token === '.') return inClass ? token : `[^${LINE_ENDS}]`;
    if (token === ']') inClass = false;
    else if (token.startsWith('[')) inClass = true;
    return token;
  });
  return RE2JS.translateRegExp(written);
}

function compile(source: string): RE2JS {
  try {
    return RE2JS.compile(source);
  } catch {
    throw new SyntaxError('has what the linear-time engine lacks, such as look-around or back-references');
  }
}
