/**
 * npm run cluster: an installation as production has it, on this machine, to break by hand; or with --check, under load,
 * with a verdict. Ends with 1 where something did not hold, with 2 where the options are not understood.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { build } from './build.mjs';
import { root } from './checkout.mjs';
import { check } from './cluster/check.mjs';
import { Installation } from './cluster/installation.mjs';
import { followLog } from './embedded/log.mjs';
import { ensureNatsServer } from './embedded/nats.mjs';
import { assertPortFree } from './embedded/process.mjs';
import { signToken } from './embedded/token.mjs';
import { homeOf, keptSecrets, portOf, writeEnvironment } from './home.mjs';
import { takeLock } from './lock.mjs';
import { newSecrets } from './secrets.mjs';
import { step } from './steps.mjs';
import { supervise } from './supervise.mjs';
import { readOptions, runCommand, UsageError } from './terminal.mjs';

/** Events per second of a check. */
const RATE = 100;

const usage = `npm run cluster -- [options]

Three NATS servers, PostgreSQL and two processes of each app, kept until Ctrl-C. PORT (8080), NATS_PORT (4222, and the
two after it) and DATABASE_PORT (5432) say where, POSTHORN_HOME says where the data is.
`;

const TOKEN_DAYS = 30;
const AUDIENCE = 'demo';

/** @type {(() => Promise<unknown> | unknown)[]} */
const cleanups = [];
/** @type {Promise<void> | undefined} */
let stopping;
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void stop().then(() => process.exit(signal === 'SIGINT' ? 130 : 143)));
}

await runCommand('cluster', async () => {
  const { values, positionals } = readOptions(process.argv.slice(2), {
    check: { type: 'boolean', default: false },
    minutes: { type: 'string' },
    rate: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  });
  if (values.help || positionals[0] === 'help') return console.log(usage);
  if (positionals.length > 0) throw new UsageError(`What is ${positionals[0]}?`);
  const minutes = Number(values.minutes ?? 0);
  if (!(minutes >= 0)) throw new UsageError(`--minutes is ${values.minutes}: it wants a number`);
  const rate = Number(values.rate ?? RATE);
  if (!(rate > 0)) throw new UsageError(`--rate is ${values.rate}: it wants a number above 0`);
  if (!values.check && (values.minutes !== undefined || values.rate !== undefined || values.json))
    throw new UsageError('--minutes, --rate and --json go with --check');
  try {
    if (!values.check) return await keep();
    if (!(await prove(minutes, rate, values.json))) process.exitCode = 1;
    await stop();
  } catch (error) {
    if (stopping) return;
    await stop();
    throw error;
  }
});

/** Once, however many signals come: npm passes on those that the terminal has sent already. */
function stop() {
  stopping ??= (async () => {
    for (let cleanup = cleanups.pop(); cleanup; cleanup = cleanups.pop()) await cleanup();
  })();
  return stopping;
}

/** Runs it until a signal comes. */
async function keep() {
  console.log('\nPosthorn, a cluster\n');
  const home = join(homeOf({ ...process.env, DATABASE_URL: '' }), 'cluster');
  const ports = portsOf(process.env);
  mkdirSync(home, { recursive: true });
  // The database's user walks through; the files inside are closed one by one.
  chmodSync(home, 0o711);
  cleanups.push(
    takeLock(
      home,
      'cluster',
      'set POSTHORN_HOME to another folder, and PORT, NATS_PORT and DATABASE_PORT to free ports.',
    ),
  );
  await build();
  for (const port of ports.nats) await assertPortFree(port, 'NATS_PORT', 'NATS');
  await assertPortFree(ports.http, 'PORT', 'the balancer');
  const secrets = keptSecrets(join(home, 'secrets.json'), newSecrets);
  const installation = new Installation({ dir: home, secrets, ports });
  cleanups.push(async () => {
    console.log('');
    await installation.stop((name, end) => step(`stop ${name}`, end));
  });
  await step('find nats-server', () => ensureNatsServer((line) => console.log(`\r  … ${line}`)));
  await step('start NATS, 3 servers', () => installation.startNats());
  await step('start PostgreSQL', () => installation.startPostgres());
  await step('start auth, registry, notifier, gateway, 2 each', () => installation.startApps());
  await step(`create the audience ${AUDIENCE}`, () => createAudience(installation.url, secrets));
  const watched = watch(installation);
  const envFile = await writeValues(home, installation, secrets);
  console.log(await welcome(installation, envFile));
  process.on('SIGUSR2', () => void watched.roll());
  // The children are unreferenced.
  setInterval(() => {}, 2 ** 30);
}

/**
 * Runs one of its own under load, and prints what came of it.
 * @param {number} minutes
 * @param {number} rate events per second
 * @param {boolean} json
 * @returns {Promise<boolean>} whether everything held
 */
async function prove(minutes, rate, json) {
  const print = json ? () => {} : console.log;
  const each = json ? (/** @type {string} */ _, /** @type {() => any} */ action) => action() : step;
  print('\nPosthorn, a cluster under load\n');
  await build({ quiet: json });
  const dir = mkdtempSync(join(tmpdir(), 'posthorn-cluster-'));
  // The database's user walks through.
  chmodSync(dir, 0o711);
  cleanups.push(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  const secrets = newSecrets();
  const installation = new Installation({ dir, secrets, removeWhenOrphaned: dir });
  cleanups.push(() => installation.kill());
  await each('start NATS, 3 servers', () => installation.startNats());
  await each('start PostgreSQL', () => installation.startPostgres({ fast: true }));
  await each('start auth, registry, notifier, gateway, 2 each', () => installation.startApps());
  const began = performance.now();
  const figures = await check({
    installation,
    secret: /** @type {string} */ (secrets.JWT_SECRET),
    rate,
    duration: minutes * 60_000,
    tell: (line) => print(`  ${clock(performance.now() - began)}  ${line}`),
    atEnd: (action) => cleanups.push(action),
  });
  if (json) console.log(JSON.stringify(figures));
  else print(report(figures));
  return figures.found === 0;
}

/** @param {import('./cluster/check.mjs').Figures} figures */
function report(figures) {
  const { events, heard, consumed, inboxes, requests, leader, rolling, findings, found } = figures;
  const n = (/** @type {number} */ number) => number.toLocaleString('en');
  const s = (/** @type {number} */ ms) => `${(ms / 1_000).toFixed(1)} s`;
  const waits = (/** @type {import('./cluster/check.mjs').Phase} */ { longest }) =>
    Object.entries(longest)
      .map(([kind, { ms, who }]) => `${kind} ${s(ms)} (${who})`)
      .join(`\n${' '.repeat(27)}`);
  return `
  load             ${figures.seconds} s, ${figures.rounds} × kill -9 of a leader and a rolling restart of 8 processes
  events           ${n(events.acknowledged)} acknowledged, ${n(events.stored)} stored: ${events.lost} lost, ${events.doubled} doubled
  heard            ${n(heard.events)} by sockets, streams and polls: ${heard.lost} lost, ${heard.doubled} doubled
  durable          ${n(consumed.events)} handled, ${consumed.redelivered} given again: ${consumed.lost} lost
  inboxes          ${n(inboxes.rows)} of ${n(inboxes.expected)} notifications: ${inboxes.lost} lost, ${inboxes.doubled} doubled, ${inboxes.wrongCounts} wrong counts
  requests         ${n(requests.sent)} sent, ${requests.unavailable} asked to come again
  leader killed    elections up to ${s(leader.slowest)}
                   longest ${waits(leader)}
                   asked to come again: ${leader.unavailable} requests, ${leader.refused} publishes over NATS
  all restarted    ends up to ${s(rolling.slowest)}
                   longest ${waits(rolling)}
                   asked to come again: ${rolling.unavailable} requests, ${rolling.refused} publishes over NATS
  ${found === 0 ? 'everything held' : `${found} findings\n${findings.map((finding) => `    ✗ ${finding}`).join('\n')}`}
`;
}

/** @param {number} ms */
function clock(ms) {
  const total = Math.floor(ms / 1_000);
  return `${String(Math.floor(total / 60)).padStart(2, '0')}:${String(total % 60).padStart(2, '0')}`;
}

/** @param {NodeJS.ProcessEnv} env */
function portsOf(env) {
  const nats = portOf(env, 'NATS_PORT', 4222);
  return {
    http: portOf(env, 'PORT', 8080),
    nats: [nats, nats + 1, nats + 2],
    database: portOf(env, 'DATABASE_PORT', 5432),
  };
}

/**
 * Brings back what ends by itself, and tells of it; and of who leads the streams from then on.
 * @param {Installation} installation
 */
function watch(installation) {
  /** @type {Set<object>} */
  const restarted = new Set();
  const notice = (/** @type {string} */ text) => console.log(`  ! ${text}`);
  const wanted = () => !stopping;
  let rolling = false;
  for (const app of installation.apps) {
    const name = installation.nameOf(app);
    followLog(app.logFile, (line) => console.log(`  ${name.padEnd(10)} ${line}`));
    // While it is restarted, its end is awaited elsewhere.
    const start = async () => {
      if (!restarted.has(app)) return app.start();
      while (restarted.has(app)) await new Promise((resolve) => setTimeout(resolve, 100));
    };
    let muted = false;
    const quiet = (/** @type {string} */ text) => {
      const told = !muted && !restarted.has(app);
      muted = restarted.has(app);
      if (told) notice(text);
    };
    void supervise(
      name,
      {
        start,
        get exited() {
          return app.exited;
        },
      },
      { wanted, notice: quiet },
    );
  }
  for (const server of installation.nats) {
    const start = async () => {
      await tellLeader(installation, server, notice);
      await installation.restartNats(server);
    };
    void supervise(
      server.name,
      {
        start,
        get exited() {
          return server.exited;
        },
      },
      { wanted, notice },
    );
  }
  return {
    async roll() {
      if (rolling || stopping) return;
      rolling = true;
      notice('restarting all apps, one process after the other');
      for (const app of installation.apps) restarted.add(app);
      try {
        await installation.rollingRestart((app, { code, ms }) =>
          notice(`${installation.nameOf(app)} ended with code ${code} after ${(ms / 1000).toFixed(1)} s`),
        );
        notice('all apps have been restarted');
      } catch (error) {
        if (!stopping) notice(String(error));
      }
      restarted.clear();
      rolling = false;
    },
  };
}

/**
 * @param {Installation} installation
 * @param {import('./cluster/installation.mjs').NatsServer} gone
 * @param {(text: string) => void} notice
 */
async function tellLeader(installation, gone, notice) {
  const began = performance.now();
  const leader = await installation.leaderOf('PH_GLOBAL');
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if (leader !== gone) notice(`${leader.name} leads PH_GLOBAL, ${seconds} s later`);
}

/**
 * @param {string} url
 * @param {Record<string, string>} secrets
 */
async function createAudience(url, secrets) {
  const token = await tokenOf(secrets, 'demo-service', 'service');
  const response = await fetch(`${url}/v1/audience`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  });
  if (!response.ok)
    throw new Error(`POST /v1/audience answered ${response.status}: ${await response.text()}`);
}

/**
 * @param {Record<string, string>} secrets
 * @param {string} sub
 * @param {string} role
 */
function tokenOf(secrets, sub, role) {
  const exp = Math.floor(Date.now() / 1000) + TOKEN_DAYS * 24 * 3600;
  return signToken(/** @type {string} */ (secrets.JWT_SECRET), { aud: AUDIENCE, sub, role, exp });
}

/**
 * @param {string} home
 * @param {Installation} installation
 * @param {Record<string, string>} secrets
 */
async function writeValues(home, installation, secrets) {
  const file = join(home, 'cluster.env');
  const operator = installation.natsLogin('operator');
  writeEnvironment(file, {
    POSTHORN_URL: installation.url,
    NATS_URL: installation.natsUrl,
    NATS_USER: operator.user,
    NATS_PASSWORD: operator.password,
    DATABASE_URL: installation.databaseUrl,
    POSTHORN_TOKEN_SERVICE: await tokenOf(secrets, 'demo-service', 'service'),
    POSTHORN_TOKEN_ALICE: await tokenOf(secrets, 'alice', 'user'),
  });
  return file;
}

/**
 * @param {Installation} installation
 * @param {string} envFile
 */
async function welcome(installation, envFile) {
  const leaders = await installation.leaders();
  const leads = (/** @type {object} */ server) =>
    [...leaders].filter(([, leader]) => leader === server).map(([stream]) => stream);
  const leader = await installation.leaderOf('PH_GLOBAL');
  const rows = [
    ['balancer', process.pid, installation.url, ''],
    ...installation.apps.map((app) => [installation.nameOf(app), app.pid, app.url, '']),
    ...installation.nats.map((server) => [
      server.name,
      server.pid,
      server.url,
      `leads ${leads(server).join(', ') || 'nothing'}`,
    ]),
    ['postgres', installation.postgres?.pid, `postgres://127.0.0.1:${installation.postgres?.port}`, ''],
  ];
  const near = relative(root, envFile);
  const source = near.startsWith('..') ? envFile : `./${near}`;
  const gateway = installation.gateways[0];
  return `
  name        process  address
${rows.map(([name, pid, url, more]) => `  ${String(name).padEnd(10)} ${String(pid).padStart(8)}  ${String(url).padEnd(28)} ${more}`.trimEnd()).join('\n')}

Three things to try, in another terminal in this folder, with the first line running in a third:
listen while the leader of PH_GLOBAL dies, while a gateway is asked to go, and while all apps
are restarted one after the other.

. ${source}; node tools/listen.mjs --url "$POSTHORN_URL" --token "$POSTHORN_TOKEN_ALICE" chess/moves
kill -9 ${leader.pid}
kill ${gateway?.pid}
kill -USR2 ${process.pid}

What ends comes back. npm run cluster -- --check does the same under load, and counts.
Addresses and logins: ${source}
Ctrl-C stops everything.
`;
}
