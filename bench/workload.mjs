/** What workloads have in common. */
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * @typedef {import('./contender.mjs').Server} Server
 * @typedef {import('./generator-process.mjs').GeneratorProcess} GeneratorProcess
 * @typedef {import('./generator.mjs').Pace} Pace
 */

/**
 * @typedef {object} Timing in seconds
 * @property {number} warmup load that is not measured
 * @property {number} duration load that is
 * @property {number} settle what sockets are left alone before memory is read
 */

/**
 * What one run of one contender measured.
 * @typedef {object} Figures
 * @property {Record<string, number>} values by the names of the workload's columns
 * @property {string[]} faults messages that were lost or doubled, connections that broke: such a run has failed
 * @property {Record<string, number>} [cores] processor time of each of the server's processes in each second
 * @property {number} [generatorCores] processor time of the generator in each second: near 1 it was the limit
 * @property {number} [otherCores] processor time of programs that have nothing to do with the run
 */

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {number} digits after the point
 */

/**
 * What is wanted of a workload: a figure of one repeat, over all contenders; the median of the repeats counts.
 * @typedef {object} Want
 * @property {string} text
 * @property {(values: (contender: string, column: string) => number) => number} figure
 * @property {number} [atLeast]
 * @property {number} [atMost]
 */

/**
 * @template {Server} S
 * @typedef {object} Workload
 * @property {string} name
 * @property {string} title
 * @property {number} sockets that the generator opens
 * @property {Record<string, (place: import('./contender.mjs').Place) => Promise<S>>} contenders
 * @property {Column[]} columns
 * @property {Want[]} wants
 * @property {(server: S, generator: GeneratorProcess, timing: Timing, contender: string) => Promise<Figures>} run
 */

/**
 * Loads what is open, measures between warm-up and end, and checks what every client received.
 * @param {Server} server
 * @param {GeneratorProcess} generator
 * @param {Pace & { latencies?: boolean }} pace
 * @param {Timing} timing
 */
export async function measure(server, generator, pace, { warmup, duration }) {
  await generator.ask('start', pace);
  await sleep(warmup * 1_000);
  const costs = await meter(server, generator);
  await sleep(duration * 1_000);
  const cost = await costs();
  const totals = await generator.ask('finish');
  return { ...cost, totals, faults: faultsOf(totals) };
}

/**
 * Begins to measure; the function that it resolves with ends that.
 * @param {Server} server
 * @param {GeneratorProcess} generator
 */
export async function meter(server, generator) {
  const measured = Object.values(server.pids);
  const pids = [...measured, ...server.helperPids];
  server.profile?.();
  const before = await generator.ask('mark', { pids });
  return async () => {
    const after = await generator.ask('mark', { pids });
    server.profile?.();
    const seconds = after.at - before.at;
    // A process that was killed meanwhile has no figures any more.
    const used = (/** @type {number} */ pid) => Math.max(0, (after.cpu[pid] ?? 0) - (before.cpu[pid] ?? 0));
    const sum = (/** @type {number[]} */ some) => some.reduce((total, pid) => total + used(pid), 0);
    const generatorCpu = after.ownCpu - before.ownCpu;
    const received = after.received - before.received;
    return {
      received,
      receivedPerSecond: received / seconds,
      receivedPerRead: received / (after.reads - before.reads),
      latencies: after.latencies,
      cpuPerMillion: (sum(measured) / received) * 1e6,
      cores: Object.fromEntries(
        Object.entries(server.pids).map(([name, pid]) => [name, used(pid) / seconds]),
      ),
      generatorCores: generatorCpu / seconds,
      otherCores: Math.max(0, after.machineCpu - before.machineCpu - generatorCpu - sum(pids)) / seconds,
    };
  };
}

/**
 * @param {{ published: number, missing: number, doubled: number, late: number, lost: number, failures: string[] }} totals
 * @returns {string[]} nothing where every client received every message once and in order
 */
export function faultsOf({ published, missing, doubled, late, lost, failures }) {
  const counts = { missing, doubled, late, 'connections lost': lost };
  return [
    ...(published === 0 ? ['nothing was published'] : []),
    ...Object.entries(counts).flatMap(([what, count]) => (count > 0 ? [`${what}: ${count}`] : [])),
    ...failures,
  ];
}
