import { describe, expect, it } from '@jest/globals';
import type { BusEvent } from '@posthorn/bus';
import { type Cursor, isBeyond } from '@posthorn/contracts';
import fc from 'fast-check';
import { settled, taken } from './progress.js';

const PATHS = ['-.a', '-.b', '-.c'];
const event = (path: string, sequence: number, epoch = 'e') =>
  ({ path, position: { epoch, sequence } }) as unknown as BusEvent;

describe('progress', () => {
  it('has what was taken, and nothing else', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...PATHS), { maxLength: 40 }),
        fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
        fc.nat(40),
        (stream, delivered, complete) => {
          let cursor: Cursor = { epoch: 'e', sequence: 0 };
          const reached = new Map<string, number>();
          stream.forEach((path, i) => {
            if (!delivered[i]) return;
            cursor = taken(cursor, event(path, i + 1));
            reached.set(path, i + 1);
          });
          const isComplete = stream.every((_, i) => i + 1 > complete || delivered[i]);
          if (isComplete) cursor = settled(cursor, { epoch: 'e', sequence: complete });
          stream.forEach((path, i) => {
            const has = !isBeyond({ epoch: 'e', sequence: i + 1 }, cursor, path);
            expect(has).toBe(i + 1 <= Math.max(reached.get(path) ?? 0, isComplete ? complete : 0));
          });
        },
      ),
    );
  });

  it('forgets topics that are no further than what is complete', () => {
    const cursor = taken(taken({ epoch: 'e', sequence: 1 }, event('-.a', 3)), event('-.b', 5));
    expect(settled(cursor, { epoch: 'e', sequence: 3 })).toEqual({
      epoch: 'e',
      sequence: 3,
      beyond: new Map([['-.b', 5]]),
    });
    expect(settled(cursor, { epoch: 'e', sequence: 9 })).toEqual({ epoch: 'e', sequence: 9 });
    expect(settled(cursor, { epoch: 'e', sequence: 0 })).toEqual(cursor);
  });

  it('begins anew in a stream that was made anew', () => {
    const cursor = taken({ epoch: 'e', sequence: 100 }, event('-.a', 2, 'f'));
    expect(cursor).toEqual({ epoch: 'f', sequence: 0, beyond: new Map([['-.a', 2]]) });
    expect(settled(cursor, { epoch: 'e', sequence: 50 })).toEqual(cursor);
  });
});
