import { describe, expect, it } from '@jest/globals';
import { createLogger, type Logger, nestLogger, onceUntil } from './logger.js';
import { readableLine } from './readable.js';

function recorded(): { logger: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    app: 'auth',
    instance: 'auth-1',
    level: 'debug',
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  return { logger, lines };
}

describe('createLogger', () => {
  it('writes one JSON object per event, with the app, the instance, and the name of the level', () => {
    const { logger, lines } = recorded();
    logger.info({ topic: 'ping' }, 'published');
    expect(lines).toMatchObject([
      { level: 'info', app: 'auth', instance: 'auth-1', topic: 'ping', msg: 'published' },
    ]);
  });

  it('hides tokens, keys, secrets and payloads wherever they stand', () => {
    const { logger, lines } = recorded();
    logger.info({
      token: 'sesame',
      request: { authorization: 'Bearer sesame', path: '/v1/topic' },
      deep: { headers: { cookie: 'sesame', password: 'sesame' } },
      event: { key: 'sesame', payload: { word: 'sesame' } },
    });
    expect(JSON.stringify(lines)).not.toContain('sesame');
    expect(lines).toMatchObject([{ token: '[hidden]', request: { path: '/v1/topic' } }]);
  });

  it('keeps of an error what explains it, through its causes, and none of its other properties', () => {
    const { logger, lines } = recorded();
    const cause = Object.assign(new Error('refused'), { code: 'ECONNREFUSED', parameters: ['sesame'] });
    logger.error({ err: new Error('no answer', { cause }) }, 'failed');
    expect(lines).toMatchObject([
      { err: { message: 'no answer', cause: { message: 'refused', code: 'ECONNREFUSED' } } },
    ]);
    expect(JSON.stringify(lines)).not.toContain('sesame');
  });
});

describe('readableLine', () => {
  it('writes a line for who reads it: time, level, app, message, fields, and the stack of an error', () => {
    const lines: string[] = [];
    const logger = createLogger({ app: 'auth', destination: { write: (line) => void lines.push(line) } });
    logger.warn({ reason: 'refused', tries: 2 }, 'waiting for NATS');
    logger.error({ err: new Error('no answer', { cause: new Error('cut') }) }, 'failed');
    const [first, second] = lines.map(readableLine);
    expect(first).toMatch(/^\d\d:\d\d:\d\d warn {2}auth {5}waiting for NATS \(reason refused, tries 2\)\n$/);
    expect(second).toMatch(
      /^\S+ error auth {5}failed\n {4}Error: no answer\n {8}at [\s\S]+ {4}caused by:\n {4}Error: cut\n/,
    );
  });

  it('leaves what is no line of the log as it is', () => {
    expect(readableLine('out of memory\n')).toBe('out of memory\n');
  });
});

describe('nestLogger', () => {
  it("turns Nest's arguments into fields", () => {
    const { logger, lines } = recorded();
    const nest = nestLogger(logger);
    nest.log('Nest application successfully started', 'NestApplication');
    nest.error('it broke', 'Error: it broke\n    at x', 'Hub');
    nest.error(new Error('broken'), 'Hub');
    expect(lines).toMatchObject([
      { level: 'debug', context: 'NestApplication', msg: 'Nest application successfully started' },
      { level: 'error', context: 'Hub', stack: 'Error: it broke\n    at x', msg: 'it broke' },
      { level: 'error', context: 'Hub', err: { message: 'broken' }, msg: 'broken' },
    ]);
  });
});

describe('onceUntil', () => {
  it('says once that a condition began and once that it ended, each time it comes', () => {
    const { logger, lines } = recorded();
    const waiting = onceUntil(logger, { begins: 'waiting for NATS', ends: 'NATS is there' });
    waiting.end();
    waiting.begin({ reason: 'refused' });
    waiting.begin({ reason: 'refused' });
    expect(waiting.holds).toBe(true);
    waiting.end();
    waiting.end();
    waiting.begin();
    expect(lines).toMatchObject([
      { level: 'warn', msg: 'waiting for NATS', reason: 'refused' },
      { level: 'info', msg: 'NATS is there', seconds: expect.any(Number) },
      { level: 'warn', msg: 'waiting for NATS' },
    ]);
  });
});
