import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * @typedef {object} GuardedOptions
 * @property {string} logFile where standard output and error go, appended
 * @property {string} [cwd]
 * @property {NodeJS.ProcessEnv} [env] default: this process's own
 * @property {number} [uid]
 * @property {number} [gid]
 * @property {NodeJS.Signals} [stopSignal] what asks it to end in order; default SIGTERM
 * @property {NodeJS.Signals} [orphanSignal] sent when this process dies, however it dies; default `stopSignal`
 * @property {string} [removeWhenOrphaned] a directory to delete after that
 */

/**
 * A child process that cannot outlive this one. A shell holds the reading end of a pipe of ours: when we die, even
 * by SIGKILL, the pipe ends and the shell signals the child. It runs in a session of its own, so that a Ctrl-C in
 * the terminal reaches us alone and we decide the order in which things end.
 */
export class GuardedProcess {
  /** @type {import('node:child_process').ChildProcess} */
  #child;
  /** @type {Promise<{ code: number | null, signal: NodeJS.Signals | null }>} */
  exited;
  /** @type {import('node:child_process').ChildProcess} */
  #guard;
  /** @type {NodeJS.Signals} */
  #stopSignal;
  #alive = true;

  /**
   * @param {string} command
   * @param {string[]} args
   * @param {GuardedOptions} options
   */
  constructor(command, args, options) {
    const { logFile, cwd, env, uid, gid, stopSignal = 'SIGTERM', orphanSignal = stopSignal } = options;
    this.#stopSignal = stopSignal;
    this.logFile = logFile;
    const log = openSync(logFile, 'a', 0o600);
    try {
      this.#child = spawn(command, args, { cwd, env, uid, gid, detached: true, stdio: ['ignore', log, log] });
    } finally {
      closeSync(log);
    }
    this.#child.unref();
    this.#guard = guardOf(this.pid, orphanSignal, options.removeWhenOrphaned);
    this.exited = new Promise((resolve) => {
      const ended = (/** @type {number | null} */ code, /** @type {NodeJS.Signals | null} */ signal) => {
        this.#alive = false;
        // The process id may be given out again from now on; there may still be data to remove.
        if (options.removeWhenOrphaned) this.#guard.stdin?.write('gone\n');
        else this.#guard.kill('SIGKILL');
        resolve({ code, signal });
      };
      this.#child.once('exit', ended);
      this.#child.once('error', () => ended(127, null));
    });
  }

  get pid() {
    return this.#child.pid;
  }

  get alive() {
    return this.#alive;
  }

  /**
   * Sends a signal and resolves when the process has ended.
   * @param {NodeJS.Signals} [signal]
   */
  async kill(signal = 'SIGKILL') {
    if (this.#alive) {
      this.#child.ref();
      this.#child.kill(signal);
    }
    await this.exited;
    this.#guard.kill('SIGKILL');
  }

  /**
   * Asks the process to end and waits; past the budget it is killed.
   * @param {number} [budgetMs]
   */
  async stop(budgetMs = 10_000) {
    const late = setTimeout(() => this.#child.kill('SIGKILL'), budgetMs);
    await this.kill(this.#stopSignal);
    clearTimeout(late);
  }

  /**
   * The last lines of its log, for an error message.
   * @param {number} [lines]
   */
  logTail(lines = 20) {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}

/**
 * @param {number | undefined} pid undefined: it could not be started
 * @param {NodeJS.Signals} signal
 * @param {string} [directory]
 */
function guardOf(pid, signal, directory) {
  // `read` fails when our end of the pipe closes. What dies needs a moment before its files can go for good.
  const script = `gone=$1; while read -r word; do gone=$word; done
    [ -n "$gone" ] || kill -${signal.replace('SIG', '')} "$2" 2>/dev/null
    [ -n "$3" ] && for try in 1 2 3; do sleep 0.5; rm -rf "$3"; done`;
  const guard = spawn('/bin/sh', ['-c', script, 'guard', pid ? '' : 'gone', String(pid), directory ?? ''], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.unref();
  const pipe = /** @type {import('node:net').Socket} */ (guard.stdin);
  pipe.on('error', () => {});
  pipe.unref();
  return guard;
}

/**
 * Ends a server that an earlier run left behind. A process id alone proves nothing, it may have been given out again:
 * only a process that runs the named program for the named directory is signalled.
 * @param {number} pid
 * @param {{ program: string, directory: string }} expected
 * @param {NodeJS.Signals} signal
 * @returns {Promise<boolean>} whether there was one
 */
export async function stopOrphan(pid, expected, signal) {
  if (!isServerOf(pid, expected)) return false;
  process.kill(pid, signal);
  const deadline = Date.now() + 10_000;
  while (isServerOf(pid, expected)) {
    if (Date.now() > deadline) process.kill(pid, 'SIGKILL');
    await sleep(20);
  }
  return true;
}

/**
 * @param {number} pid
 * @param {{ program: string, directory: string }} expected
 */
function isServerOf(pid, { program, directory }) {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    const runs = command[0]?.split('/').at(-1) === program;
    return (
      runs &&
      (command.some((part) => part.includes(directory)) || readlinkSync(`/proc/${pid}/cwd`) === directory)
    );
  } catch {
    // No such process, not ours to look at, or a system without /proc: then the port check speaks.
    return false;
  }
}

/** Ports that systems do not give to outgoing connections, and how many of them one of several test processes has. */
const FIRST_PORT = 10_000;
const LAST_PORT = 32_767;
const SHARES = 8;
/** Ports that were given out already: their servers may not listen yet. */
const given = new Set();

/**
 * A loopback port that is free now. Not one of those that systems give to outgoing connections: these would take it
 * before it is used, or while the server on it is restarted. Test processes that run side by side draw from shares of
 * their own, for the same reason.
 */
export async function freePort() {
  const size = Math.floor((LAST_PORT - FIRST_PORT + 1) / SHARES);
  const first = FIRST_PORT + (Number(process.env.JEST_WORKER_ID ?? 0) % SHARES) * size;
  for (;;) {
    const port = randomInt(first, first + size);
    if (given.has(port)) continue;
    try {
      await assertPortFree(port, 'PORT', 'a server');
      given.add(port);
      if (given.size > size / 2) given.clear();
      return port;
    } catch (error) {
      if (!(error instanceof PortInUseError)) throw error;
    }
  }
}

/** A port that somebody else holds; the message names the setting to change. */
export class PortInUseError extends Error {
  /**
   * @param {number} port
   * @param {string} variable
   * @param {string} what
   */
  constructor(port, variable, what) {
    super(
      `Port ${port}, wanted for ${what}, is in use. Set ${variable} to a free port, or stop what holds it.`,
    );
    this.name = 'PortInUseError';
  }
}

/**
 * @param {number} port
 * @param {string} variable the environment variable that chooses the port
 * @param {string} what who wants it
 * @param {string} [host]
 * @throws {PortInUseError}
 */
export async function assertPortFree(port, variable, what, host = '127.0.0.1') {
  const server = createServer();
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    if (code === 'EADDRINUSE') throw new PortInUseError(port, variable, what);
    throw new Error(
      `Port ${port}, wanted for ${what}, cannot be opened (${code}). Set ${variable} to another.`,
      {
        cause: error,
      },
    );
  }
  server.close();
  await once(server, 'close');
}
