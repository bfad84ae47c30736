import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Health, type ProbeServer, startProbeServer } from './health.js';
import { createLogger, type Logger, type LoggerOptions, onceUntil } from './logger.js';
import { Metrics } from './metrics.js';
import { type Budgets, Shutdown, ShutdownBegan } from './shutdown.js';
import { StartError } from './start-error.js';
import { openTracing, type Tracing, type TracingConfig } from './tracing.js';

/** What {@link waitFor} reports to, and how it waits. */
export interface WaitOptions {
  readonly health: Health;
  readonly logger: Logger;
  /** Ends the waiting: `waitFor` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** First and longest pause between two attempts, in ms. Defaults: 100 and 2,000. */
  readonly firstPause?: number;
  readonly longestPause?: number;
  /** Between 0 and 1, for the jitter. */
  readonly random?: () => number;
}

/**
 * Tries until it works, and never gives up: a process that exits because a dependency starts later only
 * adds noise. A {@link StartError} alone ends it: what an operator has to put right. While it waits the health check `name` is down with the reason, and the log says so once.
 *
 * Pauses double from 100 ms to 2 s, each shortened by up to half at random, so that replicas that lost the
 * same dependency do not return in step.
 */
export async function waitFor<T>(name: string, attempt: () => Promise<T>, options: WaitOptions): Promise<T> {
  const { health, logger, signal, firstPause = 100, longestPause = 2_000, random = Math.random } = options;
  const waiting = onceUntil(logger, { begins: `waiting for ${name}`, ends: `${name} is there` });
  health.expect(name);
  for (let pause = firstPause; ; pause = Math.min(pause * 2, longestPause)) {
    signal?.throwIfAborted();
    try {
      const result = await attempt();
      waiting.end();
      health.set(name, true);
      return result;
    } catch (err) {
      const reason = reasonOf(err);
      health.set(name, false, reason);
      if (err instanceof StartError) throw err;
      waiting.begin({ reason });
      logger.debug({ err }, `${name}: attempt failed`);
    }
    await sleep(pause * (1 - random() / 2), undefined, { signal }).catch(() => signal?.throwIfAborted());
  }
}

/** A refused connection that was tried on several addresses has a code and no message. */
function reasonOf(error: unknown): string {
  const { message, code } = (error ?? {}) as { message?: string; code?: string };
  return message || code || String(error);
}

/** The part of the configuration that every app has. */
export interface ServiceOptions extends TracingConfig {
  readonly app: string;
  readonly instance: string;
  readonly logLevel: LoggerOptions['level'];
  readonly logFormat?: LoggerOptions['format'];
  readonly budgets?: Partial<Budgets>;
}

/** What every process is made of. */
export interface Service {
  readonly app: string;
  readonly instance: string;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly shutdown: Shutdown;
  /** Undefined where nothing is traced. */
  readonly tracing?: Tracing | undefined;
  /** {@link waitFor} with this process's log and health, ended by its shutdown. */
  waitFor<T>(name: string, attempt: () => Promise<T>): Promise<T>;
}

/** Makes the common parts of a process and takes over its signals. */
export async function createService(options: ServiceOptions): Promise<Service> {
  const { app, instance, logLevel, logFormat, budgets } = options;
  const logger = createLogger({ app, instance, level: logLevel, format: logFormat });
  const metrics = new Metrics(app);
  const health = new Health().expose(metrics);
  const shutdown = new Shutdown({ logger, health, budgets });
  shutdown.listen();
  const tracing = await openTracing(options, { app, instance, logger });
  if (tracing) shutdown.on('close', 'traces', () => tracing.close());
  return {
    app,
    instance,
    logger,
    metrics,
    health,
    shutdown,
    tracing,
    waitFor: (name, attempt) => waitFor(name, attempt, { health, logger, signal: shutdown.signal }),
  };
}

/** {@link createService} for a process whose only HTTP are its probes: they listen when this returns. */
export async function startWorker(
  options: ServiceOptions & { readonly port: number; readonly host: string },
): Promise<Service & { readonly probes: ProbeServer }> {
  const service = await createService(options);
  const { health, metrics, logger, shutdown } = service;
  const probes = await startProbeServer({ port: options.port, host: options.host, health, metrics, logger });
  shutdown.on('close', 'probe server', () => probes.close());
  return { ...service, probes };
}

/**
 * Runs an app's `main`. Whatever keeps the process from starting goes to standard error, exit code 1: what
 * an operator can put right ({@link StartError}) as a message alone, anything else with its stack. A start that a signal interrupted is no
 * failure: the shutdown ends the process.
 */
export async function runMain(main: () => Promise<unknown>): Promise<void> {
  try {
    await main();
  } catch (error) {
    if (error instanceof ShutdownBegan) return;
    process.stderr.write(`${error instanceof StartError ? error.message : inspect(error)}\n`);
    process.exit(1);
  }
}
