import { setTimeout as sleep } from 'node:timers/promises';

const SHORTEST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** @typedef {{ start(): Promise<void>, exited: Promise<unknown> | undefined }} Supervised */

/**
 * Brings a process back whenever it ends by itself, until there is no more need for it.
 * @param {string} name
 * @param {Supervised} supervised
 * @param {{ wanted: () => boolean, notice: (text: string) => void }} options
 */
export async function supervise(name, supervised, { wanted, notice }) {
  let pauseMs = SHORTEST_PAUSE_MS;
  for (;;) {
    await supervised.exited;
    if (!wanted()) return;
    notice(`${name} ended by itself; starting it again`);
    await sleep(pauseMs);
    if (!wanted()) return;
    try {
      await supervised.start();
      notice(`${name} is back`);
      pauseMs = SHORTEST_PAUSE_MS;
    } catch (error) {
      if (!wanted()) return;
      notice(error instanceof Error ? error.message : String(error));
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }
}
