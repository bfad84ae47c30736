/**
 * npm run chaos: an installation of its own under a seeded script of faults, and clients of the SDK whose promises are
 * checked all the while. Ends with code 1 where one was broken.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { build } from './build.mjs';
import { Installation } from './chaos/installation.mjs';
import { Ledger } from './chaos/ledger.mjs';
import { Person, Service } from './chaos/people.mjs';
import { planOf, randomOf } from './chaos/plan.mjs';
import { built } from './checkout.mjs';

const usage = `npm run chaos -- [options]

  --minutes <n>    how long there are faults (10)
  --seconds <n>    the same
  --seed <n>       of the script of faults (random); the same seed makes the same script
  --clients <n>    of the SDK (12)`;

/** Milliseconds between two publishes of a client, of the service, and what else there is. */
const EACH = { publish: 500, service: 150, notify: 1_200, mark: 700 };
const REPORT = 5_000;
/** How long everything may take to come right once there are no more faults. */
const SETTLE = 120_000;
const MIB = 1024 * 1024;
/** What the memory may grow by from a third of a run to its end; the ledger takes a part. */
const GROWTH = 48 * MIB;

/** @type {(() => Promise<unknown> | unknown)[]} */
const cleanups = [];
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void cleanUp().then(() => process.exit(130)));
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await cleanUp();
  // What is left open would keep the process.
  setTimeout(() => {
    console.error(`  ✗ the process does not end: ${process.getActiveResourcesInfo().join(' ')}`);
    process.exit(1);
  }, 15_000).unref();
}

/** @returns {Promise<boolean>} whether every promise was kept */
async function main() {
  const { duration, seed, clients } = readOptions();
  await build();
  const dir = mkdtempSync(join(tmpdir(), 'posthorn-chaos-'));
  // The database's user walks through.
  chmodSync(dir, 0o711);
  cleanups.push(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  const installation = new Installation(dir);
  cleanups.push(() => installation.stop());
  await installation.start();

  const before = process.getActiveResourcesInfo().length;
  const ledger = new Ledger();
  const random = randomOf(seed);
  const world = { installation, ledger, random };
  const sdk = await built('libs/client/src/index.js');
  const bus = await built('libs/bus/src/index.js');
  const people = Array.from({ length: clients }, (_, i) => new Person(i, { ...world, sdk }));
  await Promise.all(people.map((person) => person.begin()));
  const service = new Service(clients, { ...world, bus });
  console.log(`seed ${seed}: ${clients} clients, faults for ${clock(duration)}\n`);

  const started = performance.now();
  const passed = () => performance.now() - started;
  /** @type {Map<string, number>} */
  let recent = new Map();
  let faults = 0;
  const report = () => {
    const up = people.filter(({ connected }) => connected).length;
    const streams = people.filter((person) => person.streams).length;
    console.log(
      [
        clock(passed()),
        `${String(up).padStart(2)}/${clients} up (${streams} streams)`,
        `published ${ledger.published} (${ledger.waiting} waiting)`.padEnd(30),
        `heard ${ledger.delivered}`.padEnd(13),
        [...recent].map(([fault, times]) => (times > 1 ? `${fault} ×${times}` : fault)).join(', '),
      ].join('  '),
    );
    recent = new Map();
  };
  const some = (/** @type {Person[]} */ of) => /** @type {Person} */ (of[Math.floor(random() * of.length)]);
  const users = people.filter(({ isUser }) => isUser);
  const timers = [
    setInterval(report, REPORT),
    ...people.map((person) => setInterval(() => person.publish(), EACH.publish)),
    setInterval(() => service.publish(), EACH.service),
    setInterval(() => service.notify(), EACH.notify),
    setInterval(() => void some(users).mark(), EACH.mark),
  ];
  cleanups.push(() => timers.forEach(clearInterval));

  let memory = 0;
  /** @type {Promise<unknown>[]} */
  const restarts = [];
  for (const step of planOf(seed, duration)) {
    await sleep(Math.max(0, step.at - passed()));
    if (memory === 0 && passed() > duration / 3) memory = heap();
    recent.set(step.fault, (recent.get(step.fault) ?? 0) + 1);
    faults += 1;
    const done = inflict(step, people, installation);
    restarts.push(done.catch((error) => ledger.find(`${step.fault} could not be done: ${error}`)));
  }
  await sleep(Math.max(0, duration - passed()));
  timers.splice(1).forEach(clearInterval);

  // No more faults: everything has to come right.
  const healed = performance.now();
  await Promise.all(restarts);
  await installation.settled();
  for (const { link } of people) link.heal();
  await service.end();
  const late = () => performance.now() - healed > SETTLE;
  while (ledger.waiting > 0 && !late()) await sleep(50);
  const stored = await ledger.stored(installation.natsUrl);
  while (!ledger.complete(stored) && !late()) await sleep(50);
  for (const person of people) {
    while (!(await person.agrees()) && !late()) await sleep(200);
    if (!(await person.agrees())) ledger.find(`${person.text}, and the server does not`);
    if (!person.connected) ledger.find(person.text);
  }
  const settled = performance.now() - healed;
  ledger.check(stored);
  const grown = heap() - (memory || heap());
  if (grown > GROWTH) ledger.find(`memory grew by ${mib(grown)}`);
  report();

  timers.forEach(clearInterval);
  const left = (await Promise.all(people.map((person) => person.end()))).reduce((sum, count) => sum + count);
  if (left > 0) ledger.find(`${left} connections were left after close`);
  // Handles that were just closed are gone a moment later.
  for (let i = 0; i < 50 && process.getActiveResourcesInfo().length > before; i++) await sleep(50);
  const resources = process.getActiveResourcesInfo();
  if (resources.length > before) {
    ledger.find(
      `${resources.length} resources are open after close, ${before} before: ${resources.join(' ')}`,
    );
  }

  const errors = Object.entries(ledger.errors).map(([code, times]) => `${code} ${times}`);
  console.log(`
faults       ${faults} in ${clock(duration)}
published    ${ledger.published}, ${stored.length} stored
heard        ${ledger.delivered}
came right   ${(settled / 1_000).toFixed(1)} s after the last fault
memory       ${grown < 0 ? '' : '+'}${mib(grown)} from a third of the run to its end
errors told  ${errors.join(', ') || 'none'}
findings     ${ledger.findings.length}`);
  if (ledger.findings.length > 0)
    console.log(`\nOnce more: npm run chaos -- --seed ${seed} --seconds ${duration / 1_000}`);
  return ledger.findings.length === 0;
}

/**
 * @param {import('./chaos/plan.mjs').Step} step
 * @param {Person[]} people
 * @param {Installation} installation
 */
async function inflict({ fault, which, lasts, latency, rate }, people, installation) {
  const person = /** @type {Person} */ (people[which % people.length]);
  const { link } = person;
  switch (fault) {
    case 'reset':
      return link.reset();
    case 'reset all':
      for (const one of people) one.link.reset();
      return;
    case 'half-open':
      return link.lose();
    case 'stall':
      link.stall();
      await sleep(lasts);
      return link.release();
    case 'refuse':
      link.refuses = true;
      link.reset();
      await sleep(lasts);
      link.refuses = false;
      return;
    case 'slow':
      Object.assign(link, { latency, rate });
      await sleep(lasts);
      return Object.assign(link, { latency: 0, rate: Infinity });
    case 'no websockets':
      link.blocksWebSockets = true;
      link.reset();
      await sleep(lasts);
      link.blocksWebSockets = false;
      return;
    case 'stop gateway':
      return installation.restartGateway(which, 'SIGTERM', lasts);
    case 'kill gateway':
      return installation.restartGateway(which, 'SIGKILL', lasts);
    case 'restart NATS':
      return installation.restartNats(lasts);
    case 'revoke token':
      return person.revoke();
  }
}

async function cleanUp() {
  for (let cleanup = cleanups.pop(); cleanup; cleanup = cleanups.pop()) await cleanup();
}

/** Bytes in use, without what nobody holds any more. */
function heap() {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

/** @param {number} bytes */
function mib(bytes) {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

/** @param {number} ms */
function clock(ms) {
  const seconds = Math.floor(ms / 1_000);
  return `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`;
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string' },
      seconds: { type: 'string' },
      seed: { type: 'string' },
      clients: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const number = (
    /** @type {'minutes' | 'seconds' | 'seed' | 'clients'} */ name,
    /** @type {number} */ fallback,
  ) => {
    const value = Number(values[name] ?? fallback);
    if (value > 0) return value;
    throw new Error(`--${name} is ${JSON.stringify(values[name])}: it wants a number above 0`);
  };
  return {
    duration: 1_000 * (values.seconds ? number('seconds', 0) : 60 * number('minutes', 10)),
    seed: number('seed', Math.ceil(Math.random() * 1e6)),
    clients: Math.ceil(number('clients', 12)),
  };
}
