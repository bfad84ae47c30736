import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort, GuardedProcess } from '../../tools/embedded/process.mjs';

const program = fileURLToPath(new URL('./plain-loop-server.mjs', import.meta.url));
const READY_MS = 10_000;

/**
 * The broadcast loop in a process of its own.
 * @param {import('../contender.mjs').Place} place
 * @returns {Promise<import('../contender.mjs').Server>}
 */
export async function startPlainLoop({ dir }) {
  const port = await freePort();
  const server = new GuardedProcess(process.execPath, [program, String(port)], {
    logFile: join(dir, 'plain-loop.log'),
    env: { ...process.env, NODE_ENV: 'production' },
  });
  const deadline = Date.now() + READY_MS;
  while (!(await answers(port))) {
    if (!server.alive || Date.now() > deadline)
      throw new Error(`The plain loop did not start:\n${server.logTail()}`);
    await sleep(20);
  }
  return {
    pids: { server: server.pid ?? 0 },
    helperPids: [],
    target: async () => ({ dialect: 'courier', port, path: '/' }),
    stop: () => server.kill(),
  };
}

/** @param {number} port */
async function answers(port) {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
