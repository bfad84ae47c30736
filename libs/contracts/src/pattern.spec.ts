import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ProblemError } from './problem.js';
import { matchesFilter } from './subject.js';
import { hasWildcard, parseFilters, parsePattern, parseTopic } from './topic.js';

/** A topic as somebody who reads names sees it: its words, the last one being a parameter or not. */
interface Named {
  readonly path: string;
  readonly words: readonly string[];
  readonly parameter: boolean;
}

const plain = (name: string): Named => ({
  path: parseTopic(name).path,
  words: name.split(/[:/.]/),
  parameter: false,
});
const keyed = (words: readonly string[], parameter: string): Named => ({
  path: parseTopic([...words, parameter].join('.')).path,
  words: [...words, parameter],
  parameter: true,
});
const topics: readonly Named[] = [
  ...['a', 'a.b', 'a.b.c', 'b.a', 'x.sync', 'personals.a', 'room', 'room.a'].map(plain),
  ...['community:join', 'community:membership:invite', 'mongodb:connectionAvailable', '__broadcast__'].map(
    plain,
  ),
  ...['alice', 'alice.smith', '*', '>', '-', 'a:b c'].flatMap((p) => [
    keyed(['personal'], p),
    keyed(['taskd', 'certificate'], p),
  ]),
  keyed(['user'], '7'),
  keyed(['client'], 'f3b0c442-98fc-4c14-9afb-f4c8996fb924'),
  {
    path: parseTopic('usernotification:created', 'bob').path,
    words: ['usernotification', 'created'],
    parameter: false,
  },
  {
    path: parseTopic('room/organization/a.b').path,
    words: ['room', 'organization', 'a.b'],
    parameter: false,
  },
  { path: parseTopic('room/session/s/*').path, words: ['room', 'session', 's', '*'], parameter: false },
];

/** Word by word: `*` is one, `>` at the end all that are left; only a wildcard takes a parameter. */
function naive(pattern: readonly string[], { words, parameter }: Named): boolean {
  if (pattern.at(-1) === '>') {
    const head = pattern.slice(0, -1);
    return (
      words.length > head.length &&
      head.every((p, i) => takes(p, words[i]!, parameter && i === words.length - 1))
    );
  }
  return (
    words.length === pattern.length &&
    pattern.every((p, i) => takes(p, words[i]!, parameter && i === words.length - 1))
  );
}

function takes(pattern: string, word: string, parameter: boolean): boolean {
  return pattern === '*' || (!parameter && pattern === word);
}

const word = fc.constantFrom(
  '*',
  '*',
  'a',
  'b',
  'personal',
  'taskd',
  'certificate',
  'alice',
  'community',
  'join',
  'membership',
  'usernotification',
  'created',
  'room',
  'organization',
  'session',
  'client',
);
const pattern = fc
  .tuple(fc.array(word, { maxLength: 4 }), fc.boolean())
  .map(([words, rest]) => (rest ? [...words, '>'] : words))
  .filter((words) => words.length > 0 && hasWildcard(words.join('.')));

describe('a pattern', () => {
  it('takes exactly the topics that one would expect from their names, and each once', () => {
    fc.assert(
      fc.property(pattern, (words) => {
        const { filters } = parsePattern(words.join(':'));
        for (const topic of topics) {
          const hits = filters.filter((filter) => matchesFilter(filter, topic.path));
          expect([topic.words, hits.length]).toEqual([topic.words, naive(words, topic) ? 1 : 0]);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('means the same with every separator', () => {
    expect(parsePattern('community:*:invite').filters).toEqual(parsePattern('community/*.invite').filters);
  });

  it.each([
    ['community:*:invite', ['-.community.*.invite']],
    ['sync.>', ['-.sync.>', '*.sync']],
    ['sync.*', ['-.sync.*', '*.sync']],
    [
      'usernotification:*',
      ['-.usernotification.*', '*.usernotification.created', '*.usernotification.updated'],
    ],
    ['taskd.*', ['-.taskd.*']],
    ['taskd.>', ['-.taskd.>', '*.taskd.certificate']],
    ['personal.alice.*', ['-.personal.alice.*']],
    ['sys=.*', ['-.sys=3D.*']],
  ])('%s listens on %j', (name, filters) => {
    expect(parsePattern(name).filters).toEqual(filters);
  });

  it('may have 200 characters and 12 segments', () => {
    expect(parsePattern(Array(12).fill('*').join('.')).filters[0]).toBe(`-.${Array(12).fill('*').join('.')}`);
    for (const bad of [Array(13).fill('*').join('.'), Array(4).fill('😀'.repeat(50)).concat('*').join('.')]) {
      expect(() => parsePattern(bad)).toThrow(ProblemError);
    }
  });

  it.each(['a*', 'a.*b', '>.a', 'a.>.*', 'a..*', '.*', 'a b.*', 'a.**', '*.\ud800', '', undefined, 7, ['*']])(
    'is not %j',
    (bad) => expect(() => parsePattern(bad)).toThrow(ProblemError),
  );
});

describe('a name in a list of permissions', () => {
  it('is a topic, a pattern, or every target of a topic with a hidden parameter', () => {
    expect(parseFilters('personal.alice')).toEqual(['alice.personal']);
    expect(parseFilters('mongodb:connexionAvailable')).toEqual(['-.mongodb.connectionAvailable']);
    expect(parseFilters('community:*')).toEqual(['-.community.*']);
    expect(parseFilters('usernotification/created')).toEqual(['*.usernotification.created']);
    expect(() => parseFilters('personal')).toThrow(ProblemError);
  });

  it('is a pattern where a segment of it is a wildcard', () => {
    for (const name of ['*', '>', 'a.*', 'a.*.b', 'a:>', 'personal/*']) expect(hasWildcard(name)).toBe(true);
    for (const name of ['a', 'a*', 'a.b>', '>.a', 'personal.a*']) expect(hasWildcard(name)).toBe(false);
  });
});
