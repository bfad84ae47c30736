import { afterEach, describe, expect, it } from '@jest/globals';
import { Health } from './health.js';
import { createLogger } from './logger.js';
import { type Budgets, Shutdown, ShutdownBegan } from './shutdown.js';

const never = new Promise<never>(() => undefined);
let handBack: (() => void) | undefined;

afterEach(() => {
  handBack?.();
  handBack = undefined;
});

function setUp(budgets: Partial<Budgets> = {}) {
  const health = new Health();
  const codes: number[] = [];
  let exited = () => {};
  const exit = new Promise<void>((resolve) => {
    exited = resolve;
  });
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    app: 'auth',
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const shutdown = new Shutdown({
    logger,
    health,
    budgets,
    exit: (code) => {
      codes.push(code);
      exited();
    },
  });
  return { shutdown, health, codes, exit, lines };
}

describe('Shutdown', () => {
  it('runs its phases in order, whatever order they were registered in', async () => {
    const { shutdown } = setUp();
    const ran: string[] = [];
    shutdown.on('close', 'database', () => ran.push('close'));
    shutdown.on('flush', 'NATS', () => ran.push('flush'));
    shutdown.on('stop accepting', 'HTTP', () => ran.push('stop accepting'));
    shutdown.on('finish in flight', 'calls', () => ran.push('finish in flight'));
    await shutdown.run('test');
    expect(ran).toEqual(['stop accepting', 'finish in flight', 'flush', 'close']);
  });

  it('stops being ready and aborts its signal before the first phase', async () => {
    const { shutdown, health } = setUp();
    health.set('nats', true);
    const seen: unknown[] = [];
    shutdown.on('stop accepting', 'look', () => seen.push(health.ready, shutdown.signal.aborted));
    await shutdown.run('test');
    expect(seen).toEqual([false, true]);
    expect(shutdown.signal.reason).toBeInstanceOf(ShutdownBegan);
  });

  it('runs once, however often it is asked to', async () => {
    const { shutdown } = setUp();
    let closed = 0;
    shutdown.on('close', 'count', () => {
      closed += 1;
    });
    await Promise.all([shutdown.run('first'), shutdown.run('second')]);
    expect(closed).toBe(1);
  });

  it('goes on after a step that fails', async () => {
    const { shutdown, lines } = setUp();
    const ran: string[] = [];
    shutdown.on('flush', 'broken', () => Promise.reject(new Error('no')));
    shutdown.on('close', 'database', () => ran.push('database'));
    await shutdown.run('test');
    expect(ran).toEqual(['database']);
    expect(lines).toContainEqual(
      expect.objectContaining({ level: 'error', step: 'broken', msg: 'a shutdown step failed' }),
    );
  });

  it('leaves a phase behind when its budget is over, tells its steps, and says which did not finish', async () => {
    const { shutdown, lines } = setUp({ 'finish in flight': 20 });
    let told: AbortSignal | undefined;
    shutdown.on('finish in flight', 'endless', (signal) => {
      told = signal;
      return never;
    });
    await shutdown.run('test');
    expect(told?.aborted).toBe(true);
    expect(lines).toContainEqual(
      expect.objectContaining({ phase: 'finish in flight', unfinished: ['endless'] }),
    );
  });

  it('begins at a signal and exits with 0 when it is done', async () => {
    const { shutdown, codes, exit } = setUp();
    handBack = shutdown.listen();
    process.emit('SIGTERM');
    await exit;
    expect(codes).toEqual([0]);
  });

  it('exits at once at a second signal', async () => {
    const { shutdown, codes } = setUp({ 'finish in flight': 20 });
    handBack = shutdown.listen();
    shutdown.on('finish in flight', 'endless', () => never);
    process.emit('SIGINT');
    process.emit('SIGINT');
    expect(codes).toEqual([1]);
    await shutdown.run('test');
  });
});
