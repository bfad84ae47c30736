import { afterEach, describe, expect, it } from '@jest/globals';
import { Health } from './health.js';
import { createLogger } from './logger.js';
import { keepUp, Routine } from './routine.js';

/** A task whose runs a test observes one by one. */
class Task {
  runs = 0;
  readonly reports: (string | undefined)[] = [];
  failures = 0;
  #began: () => void = () => {};
  hold: Promise<void> = Promise.resolve();

  readonly run = async () => {
    this.runs += 1;
    this.#began();
    await this.hold;
    if (this.failures-- > 0) throw new Error('no');
  };
  readonly report = (error?: Error) => {
    this.reports.push(error?.message);
  };

  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#began = resolve;
    });
  }
}

describe('a routine', () => {
  let routine: Routine;
  const start = (task: Task, everyMs: number, retryMs = everyMs) => {
    routine = new Routine({ everyMs, retryMs, run: task.run, report: task.report });
    routine.start();
  };
  afterEach(() => routine.stop());

  it('runs at intervals', async () => {
    const task = new Task();
    const first = task.next();
    start(task, 5);
    await first;
    await task.next();
    await task.next();
    expect(task.reports.every((report) => report === undefined)).toBe(true);
  });

  it('runs at once when asked', async () => {
    const task = new Task();
    start(task, 3_600_000);
    const run = task.next();
    routine.soon();
    await run;
    expect(task.runs).toBe(1);
  });

  it('runs once more when asked during a run, never twice at a time', async () => {
    const task = new Task();
    let release = () => {};
    task.hold = new Promise((resolve) => {
      release = resolve;
    });
    start(task, 3_600_000);
    const run = task.next();
    routine.soon();
    await run;
    routine.soon();
    routine.soon();
    expect(task.runs).toBe(1);
    const second = task.next();
    release();
    await second;
    await routine.stop();
    expect(task.runs).toBe(2);
  });

  it('tries again sooner after a failure, and reports both', async () => {
    const task = new Task();
    task.failures = 1;
    start(task, 3_600_000, 5);
    routine.soon();
    await task.next();
    await task.next();
    await routine.stop();
    expect(task.reports).toEqual(['no', undefined]);
  });

  it('waits for the run under way when stopped', async () => {
    const task = new Task();
    let release = () => {};
    task.hold = new Promise((resolve) => {
      release = resolve;
    });
    start(task, 3_600_000);
    const run = task.next();
    routine.soon();
    await run;
    const stopped = routine.stop();
    expect(task.reports).toHaveLength(0);
    release();
    await stopped;
    expect(task.reports).toEqual([undefined]);
  });
});

describe('what a service keeps up', () => {
  it('has its health check down from a run that fails to one that works', async () => {
    const health = new Health();
    const logger = createLogger({ app: 'spec', level: 'silent' });
    const task = new Task();
    task.failures = 1;
    const routine = keepUp(
      'task',
      { logger, health },
      { everyMs: 3_600_000, retryMs: 3_600_000, run: task.run },
    );
    routine.start();
    for (const state of [{ up: false, detail: 'no' }, { up: true }]) {
      const run = task.next();
      routine.soon();
      await run;
      await new Promise(setImmediate);
      expect(health.readiness().checks.task).toEqual(expect.objectContaining(state));
    }
    await routine.stop();
  });
});
