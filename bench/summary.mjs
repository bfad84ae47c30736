/** What the repeats of one workload come to. */

/** Processor time of other programs, in cores, from which on a run counts as disturbed. */
export const NOISE = 0.1;
/** Processor time of the generator from which on it counts as the limit. */
const SATURATED = 0.9;

/**
 * @typedef {import('./workload.mjs').Workload<any>} Workload
 * @typedef {import('./workload.mjs').Figures & { repeat: number, contender: string }} Run
 * @typedef {{ text: string, figures: number[], median: number, atLeast?: number, atMost?: number, met?: boolean }} Finding
 */

/**
 * Medians of each contender's columns, and of what is wanted repeat by repeat: both sides of a ratio come from one
 * repeat, minutes apart at most.
 * @param {Workload} workload
 * @param {Run[]} runs
 */
export function summarize({ name, title, contenders, columns, wants }, runs) {
  const repeats = [...new Set(runs.map(({ repeat }) => repeat))];
  const medians = Object.fromEntries(
    Object.keys(contenders).map((contender) => {
      const own = runs.filter((run) => run.contender === contender);
      const values = columns.map((column) => [
        column.name,
        median(own.map((run) => run.values[column.name] ?? 0)),
      ]);
      return [contender, Object.fromEntries(values)];
    }),
  );
  const findings = wants.map(({ text, figure, atLeast, atMost }) => {
    const figures = repeats.map((repeat) =>
      figure((contender, column) => {
        const run = runs.find((one) => one.repeat === repeat && one.contender === contender);
        return run?.values[column] ?? Number.NaN;
      }),
    );
    const middle = median(figures);
    const met =
      middle >= (atLeast ?? Number.NEGATIVE_INFINITY) && middle <= (atMost ?? Number.POSITIVE_INFINITY);
    const judged = atLeast !== undefined || atMost !== undefined;
    return { text, figures, median: middle, atLeast, atMost, ...(judged && { met }) };
  });
  return { name, title, medians, findings, failed: runs.some(({ faults }) => faults.length > 0), runs };
}

/** @param {Run} run */
export function isNoisy({ otherCores = 0 }) {
  return otherCores > NOISE;
}

/**
 * Whether the generator was the limit: not where one of the servers' processes was busier still.
 * @param {Run} run
 */
export function isGeneratorBound({ generatorCores = 0, cores = {} }) {
  return generatorCores > SATURATED && generatorCores > Math.max(0, ...Object.values(cores));
}

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}
