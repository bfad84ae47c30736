/**
 * npm run bench: measures Posthorn beside its controls (bench/README.md), prints tables, writes JSON. Ends with code 1
 * where a message was lost or doubled.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from '../tools/build.mjs';
import { root } from '../tools/checkout.mjs';
import { ensureNatsServer } from '../tools/embedded/nats.mjs';
import { installDependencies } from '../tools/steps.mjs';
import { openFileLimit } from './proc.mjs';
import { untilQuiet } from './quiet.mjs';
import { NOISE, summarize } from './summary.mjs';
import { printRun, printSummary } from './table.mjs';

const usage = `npm run bench -- [workload…] [options]

  workloads              fanout publishers topics busy-topics latency memory storm publish notifications polls poller; none named: all
  --repeats <n>          runs of each contender; medians count (5)
  --duration <seconds>   of a run, what is measured (6)
  --warmup <seconds>     of a run, load before that (2)
  --settle <seconds>     how long idle sockets are left alone before memory is read (5)
  --patience <seconds>   how long a run waits for other programs to be quiet (10)
  --quick                one short run of everything: shows that it works, not how fast it is
  --profile <directory>  writes CPU profiles of the gateways there
  --output <file>        where the JSON goes (bench/results/<date>.json)`;

/** What servers and generator have open beside the sockets. */
const OTHER_FILES = 500;

/**
 * @typedef {import('./workload.mjs').Workload<any>} Workload
 * @typedef {import('./summary.mjs').Run} Run
 */

/** What has to be ended, the last one first, when a run is over or broken off. @type {(() => Promise<void> | void)[]} */
const cleanups = [];

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void cleanUp().then(() => process.exit(130)));
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

/** @returns {Promise<boolean>} whether no message was lost or doubled */
async function main() {
  const { names, repeats, timing, patience, profiles, output } = readOptions();
  await installDependencies();
  await build();
  const { workloads } = await import('./workloads.mjs');
  const chosen = names.length > 0 ? workloads.filter(({ name }) => names.includes(name)) : workloads;
  for (const name of names) if (!chosen.some((workload) => workload.name === name)) throw new Error(usage);
  checkOpenFiles(chosen);
  if (profiles) mkdirSync(profiles, { recursive: true });

  const summaries = [];
  for (const workload of chosen) {
    /** @type {Run[]} */
    const runs = [];
    console.log(`\n${workload.name}: ${workload.title}`);
    for (let repeat = 0; repeat < repeats; repeat++) {
      for (const contender of inTurn(Object.keys(workload.contenders), repeat)) {
        await untilQuiet({ cores: NOISE, patience });
        const run = { repeat, contender, ...(await once(workload, contender, timing, profiles)) };
        runs.push(run);
        printRun(workload, run);
      }
    }
    const summary = summarize(workload, runs);
    printSummary(workload, summary);
    summaries.push(summary);
  }
  writeResult(output, { machine: await machine(), repeats, timing, workloads: summaries });
  return summaries.every(({ failed }) => !failed);
}

/**
 * One run of one contender, with servers and a generator of its own.
 * @param {Workload} workload
 * @param {string} contender
 * @param {import('./workload.mjs').Timing} timing
 * @param {string | undefined} profiles
 */
async function once(workload, contender, timing, profiles) {
  const { GeneratorProcess } = await import('./generator-process.mjs');
  const start = workload.contenders[contender];
  if (!start) throw new RangeError(`${workload.name} does not know ${contender}`);
  const dir = mkdtempSync(join(tmpdir(), 'posthorn-bench-'));
  // The database's user walks through.
  chmodSync(dir, 0o711);
  cleanups.push(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  try {
    const server = await start({ dir, profiles });
    cleanups.push(() => server.stop());
    const generator = new GeneratorProcess();
    cleanups.push(() => generator.end());
    return await workload.run(server, generator, timing, contender);
  } finally {
    await cleanUp();
  }
}

async function cleanUp() {
  for (let cleanup = cleanups.pop(); cleanup; cleanup = cleanups.pop()) await cleanup();
}

/**
 * Who goes first changes from repeat to repeat: a machine that warms up or slows down favours nobody.
 * @param {string[]} names
 * @param {number} repeat
 */
function inTurn(names, repeat) {
  const first = repeat % names.length;
  return [...names.slice(first), ...names.slice(0, first)];
}

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      repeats: { type: 'string' },
      duration: { type: 'string' },
      warmup: { type: 'string' },
      settle: { type: 'string' },
      patience: { type: 'string' },
      quick: { type: 'boolean', default: false },
      profile: { type: 'string' },
      output: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const { quick, profile } = values;
  const number = (
    /** @type {'repeats' | 'duration' | 'warmup' | 'settle' | 'patience'} */ name,
    /** @type {number} */ fallback,
  ) => {
    const value = Number(values[name] ?? fallback);
    if (value > 0) return value;
    throw new Error(`--${name} is ${JSON.stringify(values[name])}: it wants a number above 0`);
  };
  const date = new Date().toISOString().replace(/\..*/, '').replaceAll(':', '-');
  return {
    names: positionals,
    repeats: Math.ceil(number('repeats', quick ? 1 : 5)),
    timing: {
      duration: number('duration', quick ? 1.5 : 6),
      warmup: number('warmup', quick ? 0.5 : 2),
      settle: number('settle', quick ? 1 : 5),
    },
    patience: number('patience', quick ? 1 : 10),
    profiles: profile && resolve(profile),
    output: resolve(values.output ?? join(root, 'bench', 'results', `${date}.json`)),
  };
}

/** @param {Workload[]} chosen */
function checkOpenFiles(chosen) {
  const wanted = Math.max(...chosen.map(({ sockets }) => sockets)) + OTHER_FILES;
  const limit = openFileLimit();
  if (limit >= wanted) return;
  throw new Error(
    `A process may have ${limit} files open here, and ${wanted} are wanted. Raise the hard limit (as root: ulimit -Hn ` +
      `${wanted}, or prlimit --pid $$ --nofile=${wanted}), or name workloads with fewer sockets.`,
  );
}

async function machine() {
  const nats = spawnSync(await ensureNatsServer(), ['--version'], { encoding: 'utf8' }).stdout.trim();
  return { cores: availableParallelism(), node: process.version, nats: nats.replace(/^nats-server: /, '') };
}

/**
 * @param {string} file
 * @param {object} result
 */
function writeResult(file, result) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ at: new Date().toISOString(), ...result }, null, 2)}\n`);
  console.log(`\nWritten to ${relative(process.cwd(), file)}`);
}
