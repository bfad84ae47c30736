/**
 * Milliseconds of processor time that this process spends in a piece of work: what other processes take of a shared
 * machine meanwhile is not in it.
 */
export function cpuTime(work: () => unknown): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}
