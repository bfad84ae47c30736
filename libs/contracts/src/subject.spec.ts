import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ProblemError } from './problem.js';
import {
  audienceKey,
  checkName,
  coversFilter,
  decodeKey,
  decodePath,
  decodeToken,
  encodeKey,
  encodePath,
  encodeToken,
  ephemeralSubject,
  liveSubject,
  matchesFilter,
  parseEphemeralSubject,
  parseStoredSubject,
  redriveFilter,
  redriveSubject,
  revocationKey,
  type Scope,
  SUBJECT_LIMIT,
  storedSubject,
  topicKey,
} from './subject.js';

const hostile = fc.constantFrom(
  '.',
  '*',
  '>',
  '=',
  ' ',
  '-',
  '=2D',
  '=2E',
  '%',
  '/',
  ':',
  '\0',
  '\n',
  'é',
  'e\u0301',
  '👩‍👩‍👧',
  '\ufeff',
);
const character = fc.string({ unit: 'binary', minLength: 1, maxLength: 1 });
/** Any well-formed text, with a leaning towards what subjects and escapes are made of. */
const text = fc
  .array(fc.oneof(hostile, character), { minLength: 1, maxLength: 12 })
  .map((parts) => parts.join(''));
const key = fc.option(text);
const segments = fc.array(text, { minLength: 1, maxLength: 4 });
const place = fc.record({
  audience: text,
  scope: fc.constantFrom('local' as const, 'global' as const),
  instance: text,
  key,
  segments,
});

describe('a token', () => {
  it('is one token of a subject, whatever the text', () => {
    fc.assert(
      fc.property(text, (any) => expect(encodeToken(any)).toMatch(/^(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+$/)),
    );
  });

  it('leads back to its text', () => {
    fc.assert(fc.property(text, (any) => expect(decodeToken(encodeToken(any))).toBe(any)));
  });

  it('differs for texts that differ', () => {
    fc.assert(fc.property(text, text, (a, b) => expect(encodeToken(a) === encodeToken(b)).toBe(a === b)));
  });

  it('is written as documented', () => {
    expect(encodeToken('alice.smith')).toBe('alice=2Esmith');
    expect(encodeToken('a=2Eb')).toBe('a=3D2Eb');
    expect(encodeToken('é')).toBe('=C3=A9');
    expect(encodeToken('e\u0301')).toBe('e=CC=81');
    expect(encodeToken('😀')).toBe('=F0=9F=98=80');
    expect(encodeToken('-_aZ9')).toBe('-_aZ9');
  });

  it.each(['', '\ud800', 'a\udc00', '\udc00\ud800'])('is not made of %j', (bad) => {
    expect(() => encodeToken(bad)).toThrow(RangeError);
  });

  it.each([
    ['lower-case hex', '=2e'],
    ['an escape of what needs none', '=41'],
    ['an escaped dash', '=2D'],
    ['half an escape', 'a='],
    ['half an escape', 'a=2'],
    ['no hex', '=GG'],
    ['an overlong form of /', '=C0=AF'],
    ['a surrogate in UTF-8', '=ED=A0=80'],
    ['a lone byte of continuation', '=80'],
    ['a sequence cut short', '=F0=9F=98'],
    ['beyond Unicode', '=F4=90=80=80'],
    ['a space', 'a b'],
    ['a wildcard', '*'],
    ['a rest', '>'],
    ['plain text outside the alphabet', 'é'],
    ['nothing', ''],
    ['a line break at the end', 'abc\n'],
  ])('that is %s is not read', (_, token) => {
    expect(decodeToken(token)).toBeUndefined();
  });

  it('is read only where it is exactly what is written', () => {
    const tokenish = fc
      .array(
        fc.constantFrom('=', 'C', '3', 'A', '9', '2', 'E', 'D', '-', 'a', '=C3', '=A9', '=E2', '=82', '=AC'),
        { minLength: 1 },
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(tokenish, (token) => {
        const decoded = decodeToken(token);
        if (decoded !== undefined) expect(encodeToken(decoded)).toBe(token);
      }),
    );
  });
});

describe('a key', () => {
  it('that is a dash is not the key of an unkeyed event', () => {
    expect(encodeKey('-')).toBe('=2D');
    expect(encodeKey(null)).toBe('-');
    expect(decodeKey('=2D')).toBe('-');
    expect(decodeKey('-')).toBeNull();
  });

  it('leads back to itself, and differs for keys that differ', () => {
    fc.assert(fc.property(key, (any) => expect(decodeKey(encodeKey(any))).toBe(any)));
    fc.assert(fc.property(key, key, (a, b) => expect(encodeKey(a) === encodeKey(b)).toBe(a === b)));
  });
});

describe('a path', () => {
  it('leads back to key and segments', () => {
    fc.assert(
      fc.property(key, segments, (k, list) =>
        expect(decodePath(encodePath(k, list))).toEqual({ key: k, segments: list }),
      ),
    );
  });

  it.each(['', '-', '-.', 'a..b', '-.a.', '.a', '-.=2e', '=2d.a', '-.a.*', '-.>'])(
    'is not read from %j',
    (bad) => {
      expect(decodePath(bad)).toBeUndefined();
    },
  );
});

describe('subjects', () => {
  it('are shared by no two places', () => {
    const normal = (p: {
      audience: string;
      scope: string;
      instance: string;
      key: string | null;
      segments: string[];
    }) => JSON.stringify([p.audience, p.scope, p.scope === 'local' && p.instance, p.key, p.segments]);
    fc.assert(
      fc.property(place, place, (a, b) => {
        const subjects = (p: typeof a) => {
          const path = encodePath(p.key, p.segments);
          return [
            storedSubject(p.audience, p.scope, p.instance, path),
            liveSubject(p.audience, p.scope, p.instance, path),
          ];
        };
        const same = normal(a) === normal(b);
        expect(subjects(a).map((subject, i) => subject === subjects(b)[i])).toEqual([same, same]);
        expect(new Set([...subjects(a), ...subjects(b)]).size).toBe(same ? 2 : 4);
      }),
    );
  });

  it('say where an event is stored', () => {
    fc.assert(
      fc.property(place, ({ audience, scope, instance, key, segments }) => {
        const path = encodePath(key, segments);
        expect(parseStoredSubject(storedSubject(audience, scope, instance, path))).toEqual({
          audience,
          scope,
          instance: scope === 'local' ? instance : null,
          path,
        });
      }),
    );
  });

  it('say whose an ephemeral event is, and on which topic', () => {
    fc.assert(
      fc.property(place, ({ audience, key, segments }) => {
        const path = encodePath(key, segments);
        expect(parseEphemeralSubject(ephemeralSubject(audience, path))).toEqual({ audience, path });
      }),
    );
  });

  it('stay apart when one topic is the beginning of another', () => {
    const short = storedSubject('acme', 'global', 'main', encodePath(null, ['a']));
    const long = storedSubject('acme', 'global', 'main', encodePath(null, ['a', 'b']));
    expect(matchesFilter(short, long)).toBe(false);
    expect(matchesFilter(long, short)).toBe(false);
  });

  it('are those of the documents', () => {
    const path = encodePath(null, ['community', 'membership', 'invite']);
    expect(storedSubject('acme', 'global', 'main', path)).toBe(
      'ph.acme.global.-.community.membership.invite',
    );
    expect(storedSubject('acme', 'local', 'main', path)).toBe(
      'ph.acme.local.main.-.community.membership.invite',
    );
    expect(liveSubject('acme', 'global', 'main', path)).toBe('ph-live.acme.-.community.membership.invite');
    expect(liveSubject('acme', 'local', 'main', path)).toBe(
      'ph-live-local.acme.main.-.community.membership.invite',
    );
    expect(ephemeralSubject('acme', path)).toBe('ph-eph.acme.-.community.membership.invite');
    expect(encodePath('alice.smith', ['personal'])).toBe('alice=2Esmith.personal');
  });

  it('of redrives are for one consumer of one stream', () => {
    expect(redriveSubject('local', 'é.>', 'id', 2)).toBe('ph-redrive.local.=C3=A9=2E=3E.id.2');
    const names = ['a', 'a.b', 'a-b', '*', '>', 'local', 'global'];
    const consumers = names.flatMap<[Scope, string]>((name) => [
      ['local', name],
      ['global', name],
    ]);
    for (const one of consumers) {
      const taken = consumers.filter((other) =>
        matchesFilter(redriveFilter(...one), redriveSubject(...other, 'id', 1)),
      );
      expect(taken).toEqual([one]);
    }
  });

  it('longer than a line of the NATS protocol are refused', () => {
    const path = encodePath(null, ['x'.repeat(SUBJECT_LIMIT)]);
    expect(() => storedSubject('acme', 'global', 'main', path)).toThrow(ProblemError);
    expect(() => liveSubject('acme', 'global', 'main', path)).toThrow(ProblemError);
    expect(() => ephemeralSubject('acme', path)).toThrow(ProblemError);
  });

  it.each([
    '',
    'ph',
    'ph.acme.global',
    'ph.acme.global.-',
    'ph.acme.local.main.-',
    'ph.=61.global.-.a',
    'ph.acme.lokal.-.a',
    'ph-live.acme.-.a',
    'ph.acme.local.=2e.-.a',
  ])('that are none are not read: %j', (bad) => expect(parseStoredSubject(bad)).toBeUndefined());

  it.each(['', 'ph-eph', 'ph-eph.acme.-', 'ph-eph.=61.-.a', 'ph-live.acme.-.a', 'ph.acme.global.-.a'])(
    'of no ephemeral event are not read as one: %j',
    (bad) => expect(parseEphemeralSubject(bad)).toBeUndefined(),
  );

  it('keep keys of a bucket apart for every audience', () => {
    fc.assert(
      fc.property(text, text, text, (a, b, id) => {
        const keys = (audience: string) => [
          audienceKey(audience),
          topicKey(audience, encodePath(null, ['audience'])),
          revocationKey.token(audience, id),
          revocationKey.user(audience, id),
          revocationKey.audience(audience),
        ];
        expect(new Set([...keys(a), ...keys(b)]).size).toBe(a === b ? 5 : 10);
      }),
    );
  });
});

describe('filters', () => {
  const token = fc.constantFrom('a', 'b');
  const subject = fc.array(token, { minLength: 1, maxLength: 4 });
  const filter = fc
    .tuple(fc.array(fc.constantFrom('a', 'b', '*'), { maxLength: 4 }), fc.boolean())
    .map(([tokens, rest]) => (rest ? [...tokens, '>'] : tokens))
    .filter((tokens) => tokens.length > 0);
  /** Every subject of up to six tokens: more than any filter here can tell apart. */
  const universe = (function all(length: number): string[][] {
    if (length === 0) return [[]];
    return all(length - 1).flatMap((tokens) => [tokens, ...['a', 'b', 'c'].map((t) => [...tokens, t])]);
  })(6).filter((tokens) => tokens.length > 0);
  const asExpression = (tokens: readonly string[]) =>
    new RegExp(`^${tokens.map((t) => (t === '>' ? '.+' : t === '*' ? '[^.]+' : t)).join('\\.')}$`);

  it('take what NATS says they take', () => {
    fc.assert(
      fc.property(filter, subject, (f, s) =>
        expect(matchesFilter(f.join('.'), s.join('.'))).toBe(asExpression(f).test(s.join('.'))),
      ),
    );
  });

  it('cover each other exactly where no subject speaks against it', () => {
    fc.assert(
      fc.property(filter, filter, (outer, inner) => {
        const taken = universe
          .map((tokens) => tokens.join('.'))
          .filter((s) => matchesFilter(inner.join('.'), s));
        const all = taken.every((s) => matchesFilter(outer.join('.'), s));
        expect(coversFilter(outer.join('.'), inner.join('.'))).toBe(all);
      }),
      { numRuns: 300 },
    );
  });
});

describe('the name of an audience or an instance', () => {
  it('has 1 to 100 characters, whatever their size', () => {
    for (const name of ['a', 'x'.repeat(100), '😀'.repeat(100), 'with space', '*.>']) {
      expect(checkName('audience', name)).toBe(name);
    }
    for (const bad of ['', 'x'.repeat(101), '😀'.repeat(101), '\ud800', 'a\0b', null, undefined, 7, ['a']]) {
      expect(() => checkName('audience', bad)).toThrow(ProblemError);
    }
  });
});
