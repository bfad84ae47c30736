import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { entryOf, root } from '../checkout.mjs';
import { GuardedProcess } from './process.mjs';

const READY_MS = 60_000;

/**
 * @typedef {object} AppOptions
 * @property {import('../checkout.mjs').AppName} name
 * @property {number} port
 * @property {string} logFile its log, JSON lines, appended
 * @property {Record<string, string | undefined>} env its whole configuration; nothing is inherited but what finds programs
 * @property {string} [removeWhenOrphaned] a directory to delete should this process die without stopping the app
 */

/** One built app as a process. */
export class AppProcess {
  /** @type {GuardedProcess | undefined} */
  #process;
  /** @type {AppOptions} */
  #options;

  /** @param {AppOptions} options */
  constructor(options) {
    this.#options = options;
    this.name = options.name;
    this.port = options.port;
    this.logFile = options.logFile;
    this.url = `http://127.0.0.1:${options.port}`;
  }

  get pid() {
    return this.#process?.pid;
  }

  get alive() {
    return this.#process?.alive ?? false;
  }

  /** Resolves with how the running process ended, once it has. */
  get exited() {
    return this.#process?.exited;
  }

  /** Starts the process, without waiting for it to be ready. */
  spawn() {
    if (this.alive) return;
    const entry = entryOf(this.name);
    if (!existsSync(entry)) throw new Error(`${entry} is missing: run npm run build`);
    const { PATH, HOME, TMPDIR, TZ } = process.env;
    this.#process = new GuardedProcess(process.execPath, ['--enable-source-maps', entry], {
      cwd: root,
      logFile: this.logFile,
      env: { PATH, HOME, TMPDIR, TZ, ...this.#options.env, PORT: String(this.port) },
      removeWhenOrphaned: this.#options.removeWhenOrphaned,
      ...(this.#options.removeWhenOrphaned && { orphanSignal: 'SIGKILL' }),
    });
  }

  /** Starts the process and resolves when it is ready to serve. */
  async start() {
    this.spawn();
    await this.ready();
  }

  /**
   * Resolves when `/health/ready` says yes.
   * @param {number} [budgetMs]
   */
  async ready(budgetMs = READY_MS) {
    const deadline = Date.now() + budgetMs;
    while (Date.now() < deadline) {
      if (!this.alive) throw new Error(`${this.name} ended while starting. Its log says:\n${this.logTail()}`);
      if (await this.isReady()) return;
      await sleep(50);
    }
    throw new Error(
      `${this.name} was not ready within ${budgetMs / 1000} s. Its log says:\n${this.logTail()}`,
    );
  }

  /**
   * Resolves when `/health/ready` says no: something that the app needs is away.
   * @param {number} [budgetMs]
   */
  async unready(budgetMs = READY_MS) {
    const deadline = Date.now() + budgetMs;
    while (await this.isReady()) {
      if (Date.now() > deadline) throw new Error(`${this.name} stayed ready for ${budgetMs / 1000} s`);
      await sleep(50);
    }
  }

  /** What `/health/ready` says now; false when nobody answers. */
  async isReady() {
    try {
      const response = await fetch(`${this.url}/health/ready`, { signal: AbortSignal.timeout(2_000) });
      await response.body?.cancel();
      return response.ok;
    } catch {
      return false;
    }
  }

  /**
   * Sends a signal, by default the one of a crash, and resolves when the process has ended.
   * @param {NodeJS.Signals} [signal]
   */
  async kill(signal = 'SIGKILL') {
    await this.#process?.kill(signal);
  }

  /**
   * Asks it to drain and waits; past the budget it is killed.
   * @param {number} [budgetMs]
   */
  async stop(budgetMs = 30_000) {
    await this.#process?.stop(budgetMs);
  }

  /** Ends it in order and brings it back with the same configuration. */
  async restart() {
    await this.stop();
    await this.start();
  }

  /** Freezes the process (SIGSTOP) or lets it go on (SIGCONT). */
  freeze() {
    if (this.pid) process.kill(this.pid, 'SIGSTOP');
  }

  thaw() {
    if (this.pid) process.kill(this.pid, 'SIGCONT');
  }

  /**
   * The last lines of its log.
   * @param {number} [lines]
   */
  logTail(lines = 30) {
    return this.#process?.logTail(lines) ?? '';
  }
}
