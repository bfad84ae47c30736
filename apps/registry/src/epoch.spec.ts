import { describe, expect, it } from '@jest/globals';
import { advance, type ObservedStream, type StreamHistory } from './epoch.js';

const recorded: StreamHistory = {
  created: '2026-01-01T00:00:00.123456789Z',
  generation: 3,
  highestSequence: 10,
  highestTime: '2026-01-02T00:00:00.000000001Z',
};

const observed = (changes: Partial<ObservedStream> = {}): ObservedStream => ({
  created: recorded.created,
  lastSequence: 10,
  lastTime: recorded.highestTime,
  timeAtHighest: null,
  ...changes,
});

describe('the generation of a stream', () => {
  it('is 1 for a stream that was never seen', () => {
    const { created, lastTime } = observed();
    expect(advance(undefined, observed())).toEqual({
      created,
      generation: 1,
      highestSequence: 10,
      highestTime: lastTime,
    });
  });

  it('stays, with nothing to record, while nothing happens', () => {
    expect(advance(recorded, observed())).toBe(recorded);
  });

  it('stays when events were added, and how far they go is recorded', () => {
    const lastTime = '2026-01-03T00:00:00Z';
    const now = observed({ lastSequence: 12, lastTime, timeAtHighest: recorded.highestTime });
    expect(advance(recorded, now)).toEqual({ ...recorded, highestSequence: 12, highestTime: lastTime });
  });

  it('stays when the last event seen is no longer kept', () => {
    expect(advance(recorded, observed({ lastSequence: 12, timeAtHighest: null })).generation).toBe(3);
  });

  it.each([
    ['the stream is another one', { created: '2026-02-01T00:00:00Z', lastSequence: 99 }],
    ['it has fewer events than were seen', { lastSequence: 9 }],
    ['it is empty', { lastSequence: 0, lastTime: null }],
    [
      'another event stands where the last one seen was',
      { lastSequence: 12, timeAtHighest: '2026-01-05T00:00:00Z' },
    ],
  ])('rises when %s, and counts from there', (_, changes) => {
    const now = observed(changes);
    expect(advance(recorded, now)).toEqual({
      created: now.created,
      generation: 4,
      highestSequence: now.lastSequence,
      highestTime: now.lastTime,
    });
  });
});
