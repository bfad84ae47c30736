import { describe, expect, it } from '@jest/globals';
import { waitFor } from './bootstrap.js';
import { Health } from './health.js';
import { createLogger } from './logger.js';

function setUp() {
  const lines: Record<string, unknown>[] = [];
  const health = new Health();
  const logger = createLogger({
    app: 'auth',
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  return { lines, options: { health, logger, firstPause: 1, longestPause: 4 } };
}

describe('waitFor', () => {
  it('tries until it works, says so once, and leaves the check up', async () => {
    const { lines, options } = setUp();
    let attempts = 0;
    const states: unknown[] = [];
    const result = await waitFor(
      'database',
      async () => {
        states.push(options.health.readiness().checks.database?.detail);
        attempts += 1;
        if (attempts < 4) throw new Error(`refused ${attempts}`);
        return 'connected';
      },
      options,
    );
    expect(result).toBe('connected');
    expect(states).toEqual(['not started', 'refused 1', 'refused 2', 'refused 3']);
    expect(options.health.ready).toBe(true);
    expect(lines.map(({ msg }) => msg)).toEqual(['waiting for database', 'database is there']);
  });

  it('says nothing when the first attempt works', async () => {
    const { lines, options } = setUp();
    await waitFor('database', async () => undefined, options);
    expect(lines).toEqual([]);
  });

  it('ends with the reason of its signal', async () => {
    const { options } = setUp();
    const stop = new AbortController();
    const waiting = waitFor(
      'database',
      async () => {
        stop.abort(new Error('shutting down'));
        throw new Error('refused');
      },
      { ...options, signal: stop.signal },
    );
    await expect(waiting).rejects.toThrow('shutting down');
  });
});
