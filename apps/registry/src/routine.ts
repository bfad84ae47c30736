import { setTimeout as sleep } from 'node:timers/promises';
import { type Health, type Logger, onceUntil } from '@posthorn/service';

/** The pause after a run that failed. */
const RETRY_MS = 5_000;

/** Something to be done again and again. */
export interface RoutineOptions {
  readonly everyMs: number;
  readonly run: () => Promise<void>;
  readonly logger: Logger;
  readonly health: Health;
}

/**
 * Runs a task at intervals and at once when asked to, one run at a time. A run that fails is reported once,
 * in the log and as a health check, until one works.
 */
export class Routine {
  readonly #name: string;
  readonly #options: RoutineOptions;
  readonly #stopped = new AbortController();
  #wake = new AbortController();
  #asked = false;
  #ended: Promise<void> | undefined;

  /** @param name also that of its health check */
  constructor(name: string, options: RoutineOptions) {
    this.#name = name;
    this.#options = options;
  }

  /** The first run comes after one interval. */
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
    await this.#ended;
  }

  async #go(): Promise<void> {
    const name = this.#name;
    const { everyMs, run, logger, health } = this.#options;
    const failing = onceUntil(logger, {
      begins: `${name}: cannot be kept up`,
      ends: `${name}: kept up again`,
    });
    let pause = everyMs;
    while (!this.#stopped.signal.aborted) {
      this.#wake = new AbortController();
      const signal = AbortSignal.any([this.#stopped.signal, this.#wake.signal]);
      if (!this.#asked) await sleep(pause, undefined, { signal, ref: false }).catch(() => undefined);
      if (this.#stopped.signal.aborted) return;
      this.#asked = false;
      try {
        await run();
        pause = everyMs;
        failing.end();
        health.set(name, true);
      } catch (err) {
        pause = Math.min(RETRY_MS, everyMs);
        failing.begin({ err });
        health.set(name, false, (err as Error).message);
      }
    }
  }
}
