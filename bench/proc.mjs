/** Figures of processes and of the machine, from /proc. */
import { readdirSync, readFileSync } from 'node:fs';

/** Linux gives processor time to programs in hundredths of a second, whatever the kernel's own tick. */
const TICKS_PER_SECOND = 100;

/**
 * Processor time that a process has used, in seconds; 0 for one that is gone.
 * @param {number} pid
 */
export function cpuSeconds(pid) {
  const fields = statOf(pid);
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / TICKS_PER_SECOND;
}

/**
 * Processor time of a process and of all that it started, in seconds, those that have ended included.
 * @param {number} pid
 */
export function treeCpuSeconds(pid) {
  const times = (/** @type {string[]} */ fields, /** @type {number} */ from, /** @type {number} */ to) =>
    fields.slice(from, to).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
  let sum = times(statOf(pid), 11, 15);
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const fields = statOf(Number(name));
    if (Number(fields[1]) === pid) sum += times(fields, 11, 13);
  }
  return sum;
}

/**
 * Resident memory of a process in bytes.
 * @param {number} pid
 */
export function residentBytes(pid) {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0) * 1024;
}

/** Processor time that all programs together have used, in seconds. */
export function machineCpuSeconds() {
  const [user, nice, system, , , irq, softirq] =
    read('/proc/stat').split('\n')[0]?.split(/\s+/).slice(1) ?? [];
  return [user, nice, system, irq, softirq].reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
}

/** How many files, sockets among them, a process may have open; Node raises the soft limit to it by itself. */
export function openFileLimit() {
  const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(read('/proc/self/limits'))?.[1];
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit ?? 0);
}

/**
 * The fields of a process behind its name, which stands in parentheses and may hold anything.
 * @param {number} pid
 */
function statOf(pid) {
  const stat = read(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** @param {string} file */
function read(file) {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
