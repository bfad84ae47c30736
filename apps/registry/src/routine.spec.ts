import { EventEmitter, once } from 'node:events';
import { describe, expect, it } from '@jest/globals';
import { createLogger, Health } from '@posthorn/service';
import { Routine } from './routine.js';

const HOUR = 3_600_000;
const logger = createLogger({ app: 'registry', level: 'silent' });

describe('a routine', () => {
  it('runs again and again until it is stopped', async () => {
    const events = new EventEmitter();
    const task = new Routine('task', {
      everyMs: 1,
      run: async () => void events.emit('run'),
      logger,
      health: new Health(),
    });
    task.start();
    for (let i = 0; i < 3; i++) await once(events, 'run');
    await task.stop();
    let more = 0;
    events.on('run', () => more++);
    task.soon();
    await new Promise(setImmediate);
    expect(more).toBe(0);
  });

  it('runs at once when asked to, and once more for all who asked during a run', async () => {
    const events = new EventEmitter();
    let runs = 0;
    const task = new Routine('task', {
      everyMs: HOUR,
      async run() {
        runs += 1;
        const release = once(events, 'release');
        events.emit('run');
        await release;
      },
      logger,
      health: new Health(),
    });
    const first = once(events, 'run');
    task.start();
    task.soon();
    await first;
    for (let i = 0; i < 5; i++) task.soon();
    const second = once(events, 'run');
    events.emit('release');
    await second;
    const stopped = task.stop();
    events.emit('release');
    await stopped;
    expect(runs).toBe(2);
  });

  it('keeps its health check down from a run that fails to one that works', async () => {
    const events = new EventEmitter();
    const health = new Health();
    const outcomes = [new Error('no answer'), undefined];
    const task = new Routine('task', {
      everyMs: HOUR,
      async run() {
        events.emit('run');
        const failure = outcomes.shift();
        if (failure) throw failure;
      },
      logger,
      health,
    });
    task.start();
    for (const [up, detail] of [
      [false, 'no answer'],
      [true, undefined],
    ]) {
      const run = once(events, 'run');
      task.soon();
      await run;
      await new Promise(setImmediate);
      expect(health.readiness().checks.task?.up).toBe(up);
      expect(health.readiness().checks.task?.detail).toBe(detail);
    }
    await task.stop();
  });
});
