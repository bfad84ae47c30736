import { describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { Tokens } from '../src/tokens.js';
import { Lines } from '../src/transport.js';

describe('a stream', () => {
  it('gives each event once, wherever its text is divided, and none that was cut off', () => {
    const text = ': comment\r\n\r\ndata: {"a":1}\n\nid: 7\ndata:{"b":2}\ndata: more\n\ndata: {"cut":';
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 8 }), (cuts) => {
        const events: string[] = [];
        const lines = new Lines((data) => events.push(data));
        const places = [0, ...cuts.sort((a, b) => a - b), text.length];
        for (let i = 1; i < places.length; i++) lines.push(text.slice(places[i - 1], places[i]));
        expect(events).toEqual(['{"a":1}', '{"b":2}\nmore']);
      }),
    );
  });
});

describe('tokens', () => {
  it('are asked for once for all who wait, kept, and replaced when one is no longer good', async () => {
    let calls = 0;
    const tokens = new Tokens(async () => `t${++calls}`);
    expect(await Promise.all([tokens.get(), tokens.get()])).toEqual(['t1', 't1']);
    expect(await tokens.get()).toBe('t1');
    expect(await tokens.get('t1')).toBe('t2');
    expect(await tokens.get('t1')).toBe('t2');
  });

  it('that never come, or are none, are an error, and asked for again', async () => {
    jest.useFakeTimers();
    try {
      const answers = [new Promise<string>(() => {}), Promise.resolve(''), Promise.resolve('t')];
      const tokens = new Tokens(() => answers.shift()!);
      const failed = expect(tokens.get()).rejects.toMatchObject({ code: 'token_failed' });
      await jest.advanceTimersByTimeAsync(15_000);
      await failed;
      await expect(tokens.get()).rejects.toMatchObject({ code: 'token_failed' });
      expect(await tokens.get()).toBe('t');
    } finally {
      jest.useRealTimers();
    }
  });
});
