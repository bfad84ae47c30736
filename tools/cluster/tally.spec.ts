/** What a check finds: a check that finds nothing wrong has to be one that could. */
import { beforeEach, describe, expect, it } from '@jest/globals';
import { Tally } from './tally.mjs';

let tally: Tally;
beforeEach(() => {
  tally = new Tally();
});

const event = (n: number, lane = 'a') => ({ lane, n, at: Date.now() });

describe('what is stored', () => {
  const acknowledge = (count: number) => {
    for (let n = 0; n < count; n++) tally.acknowledge('a', n);
  };

  it('is right where every acknowledged event is there once, in order, and one more that nobody was told of', () => {
    acknowledge(3);
    expect(tally.judgeStored([0, 1, 2, 3].map((n) => event(n)))).toEqual({
      lost: 0,
      doubled: 0,
      misplaced: 0,
    });
    expect(tally.findings).toEqual([]);
  });

  it('misses what was acknowledged', () => {
    acknowledge(3);
    expect(tally.judgeStored([event(0), event(2)])).toMatchObject({ lost: 1 });
    expect(tally.judgeStored([])).toMatchObject({ lost: 3 });
    expect(tally.found).toBe(2);
  });

  it('is not there twice, nor after what came later', () => {
    acknowledge(2);
    const all = [event(0), event(1), event(0)];
    expect(tally.judgeStored(all)).toEqual({ lost: 0, doubled: 1, misplaced: 1 });
    expect(tally.found).toBe(2);
  });
});

describe('what a handler hears', () => {
  it('is complete once it has heard all that was acknowledged', () => {
    const handler = tally.handler('it', ['a', 'b']);
    tally.acknowledge('a', 0);
    expect(tally.complete).toBe(false);
    handler.hear(event(0));
    expect(tally.complete).toBe(true);
    expect(tally.judgeHeard()).toEqual({ lost: 0, doubled: 0 });
    expect(tally.heard).toBe(1);
  });

  it('is found where it has a gap, comes again, or does not come', () => {
    const handler = tally.handler('it', ['a']);
    for (let n = 0; n < 5; n++) tally.acknowledge('a', n);
    for (const n of [0, 2, 2, 3]) handler.hear(event(n));
    expect(tally.judgeHeard()).toEqual({ lost: 2, doubled: 1 });
    expect(tally.found).toBe(3);
  });

  it('is found where nobody asked for it', () => {
    tally.handler('it', ['a']).hear(event(0, 'b'));
    expect(tally.findings).toEqual(['it heard b, and did not ask for it']);
  });
});

describe('the rows of inboxes', () => {
  it('are those of the events, each once', () => {
    expect(tally.judgeRows(new Set(['e1 ann', 'e2 bob']), ['e2 bob', 'e1 ann'])).toEqual({
      lost: 0,
      doubled: 0,
    });
    expect(tally.found).toBe(0);
  });

  it('are found where one is missing, twice there, or of no event', () => {
    const rows = ['e1 ann', 'e1 ann', 'e3 eve'];
    expect(tally.judgeRows(new Set(['e1 ann', 'e2 bob']), rows)).toEqual({ lost: 1, doubled: 1 });
    expect(tally.found).toBe(3);
  });
});

describe('waits', () => {
  it('are kept where they are the longest of their kind', () => {
    tally.waited('call', 20.4, 'one');
    tally.waited('call', 3, 'two');
    expect(tally.longest).toMatchObject({ call: { ms: 20, who: 'one' }, publish: { ms: 0 } });
  });
});
