import { createHash } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { CATALOGUE } from './catalogue/index.js';
import { ProblemError } from './problem.js';
import { encodePath } from './subject.js';
import { hiddenEntry, ownTopic, parseTopic, publicName, topicAt } from './topic.js';

const separator = fc.constantFrom(':', '/', '.');
/** A name with each separator drawn anew: another spelling of the same topic. */
const respelled = (name: string) =>
  fc
    .array(separator, { minLength: 12, maxLength: 12 })
    .map((separators) => name.split(/[:/.]/).reduce((a, b, i) => `${a}${separators[i]}${b}`));
/** Text as users are called: anything. */
const parameter = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 60 })
  .filter((text) => Buffer.byteLength(text) <= 255);

const entries = [...CATALOGUE.values()];
const templates = entries.filter((entry) => entry.parameter && !entry.parameter.hidden);
const hidden = entries.filter((entry) => entry.parameter?.hidden);
const plain = entries.filter((entry) => !entry.parameter);

function refusal(name: unknown, target?: string): ProblemError {
  try {
    parseTopic(name, target);
  } catch (error) {
    if (error instanceof ProblemError) return error;
    throw error;
  }
  throw new Error(`${JSON.stringify(name)} was taken`);
}

describe('the name of a topic', () => {
  it('is split by colon, slash and dot alike', () => {
    const paths = ['a:b:c', 'a/b/c', 'a.b.c', 'a:b/c'].map((name) => parseTopic(name).path);
    expect(new Set(paths)).toEqual(new Set(['-.a.b.c']));
  });

  it.each([
    ['a segment of 64 characters', 'x'.repeat(64)],
    ['a segment of 64 emoji', '😀'.repeat(64)],
    ['200 characters', `${'x'.repeat(64)}:`.repeat(3) + 'y'.repeat(5)],
    ['12 segments', Array(12).fill('a').join('.')],
    ['wildcards of other systems', 'a/+/#'],
    ['escapes, which are text', 'a=2Eb/%2F'],
    ['names of other things', '$SYS/_INBOX/$JS'],
  ])('may have %s', (_, name) => {
    expect(parseTopic(name)).toMatchObject({ name, key: null, segments: name.split(/[:/.]/) });
  });

  it.each([
    ['nothing', ''],
    ['a segment of 65 characters', 'x'.repeat(65)],
    ['201 characters', `${'x'.repeat(64)}:`.repeat(3) + 'y'.repeat(6)],
    ['13 segments', Array(13).fill('a').join('.')],
    ['an empty segment at its start', ':a'],
    ['an empty segment at its end', 'a/'],
    ['an empty segment inside', 'a:.b'],
    ['a separator only', '.'],
    ['a space', 'a b'],
    ['a no-break space', 'a\u00a0b'],
    ['a line separator', 'a\u2028b'],
    ['a tab', 'a\tb'],
    ['a line break', 'a\nb'],
    ['NUL', 'a\0b'],
    ['a control character of Latin-1', 'a\u0085b'],
    ['DEL', 'a\u007fb'],
    ['an asterisk', 'a*b'],
    ['a wildcard', 'a.*'],
    ['an angle bracket', 'a.b>'],
    ['a rest', '>'],
    ['a lone surrogate', 'a\ud800'],
  ])('may not have %s', (_, name) => {
    const problem = refusal(name);
    expect(problem.code).toBe('request_invalid');
    expect(problem.errors).toEqual([{ path: '/topic', message: expect.any(String) }]);
  });

  it.each([[undefined], [null], [7], [['a']], [{}], [true]])('is a text: %j is none', (name) => {
    expect(refusal(name).code).toBe('request_invalid');
  });

  it('is kept as written', () => {
    expect(parseTopic('System/Events').name).toBe('System/Events');
    expect(parseTopic('System/Events').path).not.toBe(parseTopic('system/events').path);
  });
});

describe('a topic of the catalogue', () => {
  it.each(plain.map((entry) => entry.name))('%s is itself under every separator', (name) => {
    fc.assert(
      fc.property(respelled(name), (spelling) => {
        expect(parseTopic(spelling)).toMatchObject({
          path: parseTopic(name).path,
          entry: CATALOGUE.get(name),
        });
      }),
      { numRuns: 20 },
    );
  });

  it.each(entries.flatMap((entry) => (entry.aliases ?? []).map((alias) => [alias, entry.name])))(
    '%s is another name of %s',
    (alias, name) => {
      fc.assert(
        fc.property(respelled(alias), (spelling) => {
          const topic = parseTopic(spelling);
          expect(topic).toMatchObject({
            name: spelling,
            path: parseTopic(name).path,
            entry: CATALOGUE.get(name),
          });
        }),
        { numRuns: 20 },
      );
    },
  );

  it.each(templates.map((entry) => entry.name))('%s takes the rest of the name as its parameter', (name) => {
    const entry = CATALOGUE.get(name)!;
    const key = (value: string) =>
      entry.parameter!.secret ? createHash('sha256').update(value).digest('hex') : value;
    fc.assert(
      fc.property(respelled(name), separator, parameter, (spelling, last, value) => {
        const topic = parseTopic(`${spelling}${last}${value}`);
        expect(topic).toMatchObject({ key: key(value), segments: name.split(/[:/.]/), entry });
        expect(topic.path).toBe(encodePath(key(value), name.split(/[:/.]/)));
        expect(topic.path).toBe(ownTopic(name, value).path);
      }),
    );
  });

  it.each(templates.map((entry) => entry.name))('%s needs its parameter, of 1 to 255 bytes', (name) => {
    for (const bad of [
      name,
      `${name}.`,
      `${name}:`,
      `${name}.${'x'.repeat(256)}`,
      `${name}:${'é'.repeat(128)}`,
    ]) {
      expect(refusal(bad).detail).toContain(name);
    }
    expect(parseTopic(`${name}.${'x'.repeat(255)}`).entry?.name).toBe(name);
  });

  it.each(hidden.map((entry) => entry.name))('%s has its target as key, and only so', (name) => {
    fc.assert(
      fc.property(respelled(name), parameter, (spelling, target) => {
        expect(parseTopic(spelling, target)).toMatchObject({
          name: spelling,
          key: target,
          entry: CATALOGUE.get(name),
        });
        expect(hiddenEntry(spelling)?.name).toBe(name);
      }),
    );
    expect(refusal(name).detail).toContain('target');
    expect(refusal(name, '').code).toBe('request_invalid');
    expect(refusal(name, 'x'.repeat(256)).code).toBe('request_invalid');
    expect(refusal(name, '\udc00').code).toBe('request_invalid');
    expect(parseTopic(`${name}:alice`)).toMatchObject({ key: null, entry: undefined });
  });

  it('is not reached by what only looks like it', () => {
    for (const name of [
      'Personal.alice',
      'personal=2Ealice',
      'personals.alice',
      'x.personal.alice',
      'users:7',
    ]) {
      expect(parseTopic(name)).toMatchObject({ key: null, entry: undefined });
    }
    expect(parseTopic('user:-').path).toBe('=2D.user');
  });

  it('is the only thing that has its path', () => {
    const reserved = new Map(entries.map((entry) => [entry.name.replace(/[:/]/g, '.'), entry]));
    const word = fc.constantFrom(
      'personal',
      'user',
      'client',
      'community',
      'join',
      'taskd',
      'certificate',
      'usernotification',
      'created',
      'mongodb',
      'connexionAvailable',
      '-',
      '=2D',
      'a',
    );
    const name = fc
      .array(fc.tuple(word, separator), { minLength: 1, maxLength: 5 })
      .map((parts) => parts.map(([w, s], i) => (i === parts.length - 1 ? w : w + s)).join(''));
    fc.assert(
      fc.property(name, (spelling) => {
        let topic: ReturnType<typeof parseTopic>;
        try {
          topic = parseTopic(spelling, 'bob');
        } catch {
          return;
        }
        const at = reserved.get(topic.path.slice(topic.path.indexOf('.') + 1));
        expect(topic.entry).toBe(at);
        expect(topic.key === null).toBe(!at?.parameter);
        expect(topicAt(topic.path)?.path).toBe(topic.path);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('the id of a client', () => {
  const id = 'f3b0c442-98fc-4c14-9afb-f4c8996fb924';
  const hash = createHash('sha256').update(id).digest('hex');

  it('is in the name that its owner knows and nowhere else', () => {
    const topic = parseTopic(`client:${id}`);
    expect(topic.name).toBe(`client:${id}`);
    expect(JSON.stringify({ ...topic, name: '', entry: undefined })).not.toContain(id);
    expect(topic.path).toBe(`${hash}.client`);
    expect(publicName(topic)).toBe(`client:${hash}`);
    expect(topicAt(topic.path)?.name).toBe(`client:${hash}`);
  });

  it('cannot be replaced by its hash', () => {
    expect(parseTopic(`client:${hash}`).path).not.toBe(`${hash}.client`);
  });
});

describe('a room', () => {
  const room = '8f14e45f-ceea-4e7b-9c1e-000000000001';

  it.each([
    [`room/organization/`, ['room', 'organization']],
    [`room:event:${room}:`, ['room', 'event', room]],
    [`room.session/${room}.`, ['room', 'session', room]],
  ])('%s… takes the event name verbatim, as one segment', (prefix, head) => {
    const eventName = fc.oneof(
      parameter,
      fc.constantFrom('a.b/c:d', '*', '>', ' ', 'say hello', 'a..b', '\n', '-'),
    );
    fc.assert(
      fc.property(eventName, (name) => {
        const topic = parseTopic(`${prefix}${name}`);
        expect(topic).toMatchObject({ key: null, segments: [...head, name], entry: undefined });
        expect(topicAt(topic.path)?.segments.at(-1)).toBe(name);
        expect(topicAt(topic.path)?.path).toBe(topic.path);
      }),
    );
  });

  it('has event names of 1 to 255 characters', () => {
    expect(parseTopic(`room/session/${room}/${'😀'.repeat(255)}`).segments).toHaveLength(4);
    for (const bad of ['', 'x'.repeat(256)]) {
      expect(refusal(`room/session/${room}/${bad}`).detail).toContain('event name');
      expect(refusal(`room/organization/${bad}`).detail).toContain('event name');
    }
    expect(refusal('room/session//say-hello').code).toBe('request_invalid');
    expect(refusal('room/session/a b/say-hello').code).toBe('request_invalid');
  });

  it('is another topic than the same words apart', () => {
    const path = encodePath(null, ['room', 'organization', 'a', 'b']);
    expect(parseTopic('room/organization/a/b').path).not.toBe(path);
    expect(topicAt(path)).toBeUndefined();
  });
});

describe('the name of a path', () => {
  it('is the registered one', () => {
    expect(topicAt('-.system.events', 'system:events', 'system.events')?.name).toBe('system:events');
  });

  it("is the header's where none is registered", () => {
    expect(topicAt('-.system.events', undefined, 'system.events')?.name).toBe('system.events');
  });

  it('is joined by slashes where the header says another topic or none', () => {
    for (const header of [
      'other',
      '',
      'system/events/',
      'personal.alice',
      '__broadcast__',
      'system=2Eevents',
      '\ud800',
    ]) {
      expect(topicAt('-.system.events', undefined, header)?.name).toBe('system/events');
    }
  });

  it("is the catalogue's for a documented topic, whatever a header says", () => {
    expect(topicAt('-.community.join', undefined, 'community.join')?.name).toBe('community:join');
    expect(topicAt('-.mongodb.connectionAvailable')?.name).toBe('mongodb:connectionAvailable');
    expect(topicAt('alice=2Esmith.personal', undefined, 'personal.bob')?.name).toBe('personal.alice.smith');
    expect(topicAt('7.usernotification.created')).toMatchObject({
      name: 'usernotification:created',
      key: '7',
    });
  });

  it.each([
    'alice.system',
    'alice.community.join',
    '-.personal',
    '-.usernotification.created',
    '-.a b',
    '-',
    '',
    'a',
    `-.${'x'.repeat(65)}`,
    `${'x'.repeat(256)}.user`,
    '-.a.=2A',
  ])('is not given to %j, to which no name leads', (path) => expect(topicAt(path)).toBeUndefined());

  it('leads back to its path', () => {
    const name = fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(name, (parts) => {
        let topic: ReturnType<typeof parseTopic>;
        try {
          topic = parseTopic(parts.join('/'));
        } catch {
          return;
        }
        expect(topicAt(topic.path)).toMatchObject({ path: topic.path, key: topic.key });
      }),
    );
  });
});
