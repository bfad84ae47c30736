import { setTimeout as sleep } from 'node:timers/promises';
import type { Service } from './bootstrap.js';
import { onceUntil } from './logger.js';

/** Something to be done again and again. */
export interface RoutineOptions {
  /** The pause between two runs, in ms. */
  readonly everyMs: number;
  /** The pause after a run that failed, in ms. */
  readonly retryMs: number;
  readonly run: () => Promise<void>;
  /** Told after each run how it went: with what it failed, or with nothing. */
  readonly report: (error?: Error) => void;
}

/** Runs a task at intervals, and at once when asked to, one run at a time. It does not keep a process alive. */
export class Routine {
  readonly #options: RoutineOptions;
  readonly #stopped = new AbortController();
  #wake = new AbortController();
  #asked = false;
  #ended: Promise<void> | undefined;

  constructor(options: RoutineOptions) {
    this.#options = options;
  }

  /** Begins, with a pause. */
  start(): void {
    this.#ended ??= this.#go();
  }

  /** Asks for a run now; during a run, for another one after it. */
  soon(): void {
    this.#asked = true;
    this.#wake.abort();
  }

  /** Resolves when the run under way, if any, is over; there is none after it. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#wake.abort();
    await this.#ended;
  }

  async #go(): Promise<void> {
    const { everyMs, retryMs, run, report } = this.#options;
    let pause = everyMs;
    for (;;) {
      this.#wake = new AbortController();
      const { signal } = this.#wake;
      if (!this.#asked && !this.#stopped.signal.aborted) {
        await sleep(pause, undefined, { signal, ref: false }).catch(() => {});
      }
      if (this.#stopped.signal.aborted) return;
      this.#asked = false;
      try {
        await run();
        pause = everyMs;
        report();
      } catch (error) {
        pause = Math.min(retryMs, everyMs);
        report(error as Error);
      }
    }
  }
}

/**
 * A routine for what a service has to keep up. A run that fails is told once, in the log and as the health
 * check of that name, until one works.
 */
export function keepUp(
  name: string,
  { logger, health }: Pick<Service, 'logger' | 'health'>,
  options: Omit<RoutineOptions, 'report'>,
): Routine {
  const failing = onceUntil(logger, {
    begins: `${name}: cannot be kept up`,
    ends: `${name}: kept up again`,
  });
  const report = (err?: Error) => {
    health.set(name, !err, err?.message);
    if (err) failing.begin({ err });
    else failing.end();
  };
  return new Routine({ ...options, report });
}
