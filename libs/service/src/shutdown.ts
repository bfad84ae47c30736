import type { Health } from './health.js';
import type { Logger } from './logger.js';

/** The phases of a shutdown, in the order in which they run. */
export const PHASES = ['stop accepting', 'finish in flight', 'flush', 'close'] as const;
export type Phase = (typeof PHASES)[number];

/** How long each phase may take, in ms. Their sum bounds the whole shutdown. */
export type Budgets = Readonly<Record<Phase, number>>;

/** What each phase has where an app says nothing else. */
export const BUDGETS: Budgets = {
  'stop accepting': 5_000,
  'finish in flight': 10_000,
  flush: 5_000,
  close: 5_000,
};

/** A step of a phase. The signal aborts when the phase's budget is over and nobody waits any longer. */
export type Step = (signal: AbortSignal) => Promise<unknown> | unknown;

/** Why whatever waits or retries was ended: the reason of {@link Shutdown.signal}. */
export class ShutdownBegan extends Error {
  override readonly name = 'ShutdownBegan';
}

/** What a {@link Shutdown} needs. */
export interface ShutdownOptions {
  readonly logger: Logger;
  readonly health: Health;
  readonly budgets?: Partial<Budgets> | undefined;
  /** How the process ends; `process.exit` when not given. */
  readonly exit?: (code: number) => void;
}

/**
 * The end of a process, in phases with budgets. Steps of one phase run side by side, so whatever has to
 * wait for something else belongs to a later phase. A step that fails or runs out of time is logged and
 * does not keep the others from running.
 */
export class Shutdown {
  readonly #steps = new Map<Phase, { name: string; run: Step }[]>(PHASES.map((phase) => [phase, []]));
  readonly #abort = new AbortController();
  readonly #logger: Logger;
  readonly #health: Health;
  readonly #budgets: Budgets;
  readonly #exit: (code: number) => void;
  #running: Promise<void> | undefined;

  constructor({ logger, health, budgets, exit = (code) => process.exit(code) }: ShutdownOptions) {
    this.#logger = logger;
    this.#health = health;
    this.#budgets = { ...BUDGETS, ...budgets };
    this.#exit = exit;
  }

  /** Aborts when the shutdown begins: for whatever waits or retries. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Registers a step. Also accepted while earlier phases already run. */
  on(phase: Phase, name: string, run: Step): void {
    this.#steps.get(phase)?.push({ name, run });
  }

  /**
   * Takes over the process's signals and its unhandled failures. SIGTERM and SIGINT shut down; a second one
   * ends the process at once. After an unhandled failure nothing in memory can be trusted: log, exit 1.
   * Returns the way to hand them back.
   */
  listen(): () => void {
    const onSignal = (signal: NodeJS.Signals) => {
      if (this.#running) {
        this.#logger.warn({ signal }, 'second signal: exiting without finishing');
        return this.#exit(1);
      }
      void this.run(signal).then(() => this.#exit(0));
    };
    const onFailure = (err: unknown, origin: string) => {
      this.#logger.fatal({ err, origin }, 'unhandled failure: exiting');
      this.#exit(1);
    };
    const onRejection = (reason: unknown) => onFailure(reason, 'unhandledRejection');
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    process.on('uncaughtException', onFailure);
    process.on('unhandledRejection', onRejection);
    return () => {
      process.off('SIGTERM', onSignal);
      process.off('SIGINT', onSignal);
      process.off('uncaughtException', onFailure);
      process.off('unhandledRejection', onRejection);
    };
  }

  /** Runs the phases, once: later calls wait for the same run. Does not end the process. */
  run(reason: string): Promise<void> {
    this.#running ??= this.#runPhases(reason);
    return this.#running;
  }

  async #runPhases(reason: string): Promise<void> {
    const began = performance.now();
    this.#logger.info({ reason }, 'shutting down');
    this.#health.drain();
    this.#abort.abort(new ShutdownBegan(`shutting down: ${reason}`));
    // Steps that block the event loop cannot be timed out from within their phase.
    const total = PHASES.reduce((sum, phase) => sum + this.#budgets[phase], 0);
    const force = setTimeout(() => {
      this.#logger.error({ ms: total }, 'shutdown is out of time: exiting without finishing');
      this.#exit(1);
    }, total + 1_000);
    force.unref();
    for (const phase of PHASES) await this.#runPhase(phase);
    clearTimeout(force);
    this.#logger.info({ ms: Math.round(performance.now() - began) }, 'shut down');
  }

  async #runPhase(phase: Phase): Promise<void> {
    const steps = this.#steps.get(phase) ?? [];
    if (steps.length === 0) return;
    const began = performance.now();
    const unfinished = new Set(steps.map(({ name }) => name));
    const overdue = new AbortController();
    const budget = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#budgets[phase]);
      overdue.signal.addEventListener('abort', () => clearTimeout(timer));
    });
    const work = Promise.all(
      steps.map(async ({ name, run }) => {
        try {
          await run(overdue.signal);
        } catch (err) {
          this.#logger.error({ err, phase, step: name }, 'a shutdown step failed');
        } finally {
          unfinished.delete(name);
        }
      }),
    );
    await Promise.race([work, budget]);
    overdue.abort();
    const ms = Math.round(performance.now() - began);
    if (unfinished.size === 0) this.#logger.info({ phase, ms }, 'shutdown phase done');
    else this.#logger.warn({ phase, ms, unfinished: [...unfinished] }, 'shutdown phase is out of time');
  }
}
