import { describe, expect, it } from '@jest/globals';
import type { EventPayload } from '@posthorn/bus/nest';
import { joinActivity, messageActivity, TARGET_LIMIT } from './activity.js';

type Sent = EventPayload<'message:activity'>;

const STORED = 1_800_000_000_123_456_789n;
const STORED_AT = '2027-01-15T08:00:00.123Z';

const item = (payload: object) => JSON.parse(messageActivity(payload as Sent, STORED).content);
const targets = (payload: object) => messageActivity(payload as Sent, STORED).targets;

describe('message:activity', () => {
  const long = {
    verb: 'post',
    language: 'en',
    published: 1_800_000_000_000,
    actor: { objectType: 'user', _id: 123, image: 987_654_321, displayName: 'Awesome User' },
    object: { objectType: 'whatsup', _id: 456 },
    target: [{ objectType: 'user', _id: 798 }],
  };
  const short = { verb: 'create', source: 'ann', targets: ['tom', 7], message: { id: 'm1' }, date: 0 };

  it("is kept as the document's long form has it", () => {
    expect(item(long)).toEqual({ ...long, published: '2027-01-15T08:00:00.000Z' });
    expect(targets(long)).toEqual(['798']);
  });

  it('gets the members of the long form where it has the short one', () => {
    expect(item(short)).toEqual({
      verb: 'create',
      published: '1970-01-01T00:00:00.000Z',
      actor: 'ann',
      object: { id: 'm1' },
      target: ['tom', 7],
    });
    expect(targets(short)).toEqual(['tom', '7']);
  });

  it('keeps whatever else was sent, but for an id', () => {
    const sent = { ...long, id: 'mine', _id: 'theirs', title: 'Tea', __proto__x: 1 };
    expect(item(sent)).toMatchObject({ _id: 'theirs', title: 'Tea', __proto__x: 1 });
    expect(item(sent)).not.toHaveProperty('id');
    expect(item({ ...short, language: 'fr' })).toMatchObject({ language: 'fr' });
  });

  it('stands on the timeline of each target once, whichever form its id has', () => {
    expect(
      targets({ ...long, target: ['7', 7, { _id: 7 }, { id: '7' }, { _id: 8, id: 7 }, '*', '>'] }),
    ).toEqual(['7', '8', '*', '>']);
    expect(targets({ ...long, target: [] })).toEqual([]);
  });

  it.each([
    ['milliseconds', 1_800_000_000_000, '2027-01-15T08:00:00.000Z'],
    ['a moment', '2027-01-15T09:00:00+01:00', '2027-01-15T08:00:00.000Z'],
    ['a date', '2027-01-15', '2027-01-15T00:00:00.000Z'],
    ['a date as JavaScript writes it', 'Fri Jan 15 2027 09:00:00 GMT+0100 (CET)', '2027-01-15T08:00:00.000Z'],
    ['nothing', undefined, STORED_AT],
    ['a moment without a zone', '2027-01-15T09:00:00', STORED_AT],
    ['no moment', 'yesterday', STORED_AT],
    ['a number as text', '5', STORED_AT],
    ['a year without end', 1e300, STORED_AT],
    ['a time before 1970', -1, STORED_AT],
  ])('is published when it says, or when it was stored: %s', (_, published, expected) => {
    expect(item({ ...long, published }).published).toBe(expected);
  });

  it('is refused with more targets than it may have, or with one that has no id', () => {
    const many = (count: number) => ({ ...long, target: Array.from({ length: count }, (_, i) => i) });
    expect(targets(many(TARGET_LIMIT))).toHaveLength(TARGET_LIMIT);
    expect(() => targets(many(TARGET_LIMIT + 1))).toThrow('/target holds more than 10000 targets');
    expect(() => targets({ ...short, targets: [{ id: 'a\0b' }] })).toThrow('/targets holds no id');
    expect(() => targets({ ...long, target: ['x'.repeat(256)] })).toThrow('more than 255 bytes');
  });

  it('is refused where its numbers would grow beyond what a call can carry', () => {
    const numbers = Array.from({ length: 60_000 }, () => 1e20);
    expect(() => item({ ...long, numbers })).toThrow('larger than 1 MiB');
  });
});

describe('community:join', () => {
  it('stands on the timelines of the community and of who has joined', () => {
    const { content, targets } = joinActivity({ author: 'ann', target: 7, community: 'chess' }, STORED);
    expect(targets).toEqual(['chess', '7']);
    expect(JSON.parse(content)).toEqual({
      verb: 'join',
      published: STORED_AT,
      actor: { objectType: 'user', id: 'ann' },
      object: { objectType: 'community', id: 'chess' },
      target: [
        { objectType: 'community', id: 'chess' },
        { objectType: 'user', id: '7' },
      ],
    });
  });

  it('keeps objects as they were sent, and says nothing of managers', () => {
    const author = { _id: 1, displayName: 'Ann' };
    const { content } = joinActivity(
      {
        author,
        target: author,
        community: { _id: 'chess', title: 'Chess' },
        managers: ['max'],
        actor: 'manager',
      },
      STORED,
    );
    const chess = { _id: 'chess', title: 'Chess' };
    expect(JSON.parse(content)).toEqual({
      verb: 'join',
      published: STORED_AT,
      actor: author,
      object: chess,
      target: [chess, author],
    });
  });
});
