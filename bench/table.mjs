/** What the terminal shows of runs and of their summary. */
import { isGeneratorBound, isNoisy } from './summary.mjs';

const NAME_WIDTH = 16;

/**
 * One line for each run as soon as it is over.
 * @param {import('./summary.mjs').Workload} workload
 * @param {import('./summary.mjs').Run} run
 */
export function printRun({ columns }, run) {
  const { contender, values, faults, cores = {}, generatorCores, otherCores } = run;
  const figures = columns.map(({ name, digits }) => `${format(values[name], digits)} ${name}`);
  for (const [name, used] of Object.entries(cores)) figures.push(`${name} ${percent(used)}`);
  if (generatorCores !== undefined) figures.push(`generator ${percent(generatorCores)}`);
  if (otherCores !== undefined) figures.push(`others ${percent(otherCores)}`);
  const marks = [
    ...(isGeneratorBound(run) ? ['GENERATOR-BOUND'] : []),
    ...(isNoisy(run) ? ['NOISY'] : []),
    ...(faults.length > 0 ? [`FAILED (${faults.join('; ')})`] : []),
  ];
  console.log(`  ${contender.padEnd(NAME_WIDTH)} ${[...figures, ...marks].join(', ')}`);
}

/**
 * @param {import('./summary.mjs').Workload} workload
 * @param {ReturnType<typeof import('./summary.mjs').summarize>} summary
 */
export function printSummary({ columns }, { medians, findings, runs, failed }) {
  const noisy = runs.filter(isNoisy).length;
  const widths = columns.map(({ name }) => Math.max(name.length, 12));
  const cells = (/** @type {string[]} */ texts) =>
    texts.map((text, index) => text.padStart(widths[index] ?? 0));
  console.log(`\n  ${['median'.padEnd(NAME_WIDTH), ...cells(columns.map(({ name }) => name))].join('  ')}`);
  for (const [contender, values] of Object.entries(medians)) {
    const texts = columns.map(({ name, digits }) => format(values[name], digits));
    console.log(`  ${[contender.padEnd(NAME_WIDTH), ...cells(texts)].join('  ')}`);
  }
  for (const { text, median, atLeast, atMost, met } of findings) {
    const wanted = atLeast !== undefined ? `at least ${atLeast}` : `at most ${atMost}`;
    const verdict = met === undefined ? '' : `  wanted: ${wanted}  ${met ? 'met' : 'NOT MET'}`;
    console.log(`  ${text}: ${format(median, 2)}${verdict}`);
  }
  if (noisy > 0) console.log(`  ${noisy} of ${runs.length} runs were disturbed by other programs`);
  if (failed) console.log('  FAILED: messages were lost or doubled, or connections broke');
}

/**
 * @param {number | undefined} value
 * @param {number} digits
 */
function format(value, digits) {
  if (value === undefined || Number.isNaN(value)) return '-';
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** @param {number} cores */
function percent(cores) {
  return `${Math.round(cores * 100)} %`;
}
