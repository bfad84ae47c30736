import { setTimeout as sleep } from 'node:timers/promises';
import { machineCpuSeconds } from './proc.mjs';

const SAMPLE_MS = 500;

/**
 * Waits for a moment in which nothing else uses the processors, and no longer than the patience lasts: a run beside
 * other work is measured all the same, and marked.
 * @param {{ cores: number, patience: number }} options patience in seconds
 */
export async function untilQuiet({ cores, patience }) {
  const deadline = performance.now() + patience * 1_000;
  do {
    const before = machineCpuSeconds();
    await sleep(SAMPLE_MS);
    if ((machineCpuSeconds() - before) / (SAMPLE_MS / 1_000) <= cores) return;
  } while (performance.now() < deadline);
}
