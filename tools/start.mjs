/**
 * npm start: from a fresh checkout to a running Posthorn on this machine. Only built-in modules until the
 * dependencies are installed.
 */
import { join, relative } from 'node:path';
import { build } from './build.mjs';
import { root } from './checkout.mjs';
import { followLog } from './embedded/log.mjs';
import { ensureNatsServer } from './embedded/nats.mjs';
import { environmentFile, homeOf, writeEnvironment } from './home.mjs';
import { takeLock } from './lock.mjs';
import { installDependencies, step } from './steps.mjs';

const TOKEN_DAYS = 30;
const started = performance.now();

/** @type {import('./stack.mjs').Stack | undefined} */
let stack;
/** @type {Promise<void> | undefined} */
let stopping;

const home = homeOf(process.env);
let unlock = () => {};

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void stop().then(() => process.exit(0)));
}

try {
  await start();
} catch (error) {
  if (!stopping) {
    console.error(`\n${error instanceof Error ? error.message : error}\n`);
    await stop();
    process.exit(1);
  }
}

async function start() {
  console.log('\nPosthorn\n');
  unlock = takeLock(
    home,
    'start',
    'set POSTHORN_HOME to another folder, and PORT, NATS_PORT and DATABASE_PORT to free ports.',
  );
  await installDependencies();
  await build();
  const { Stack } = await import('./stack.mjs');
  const running = new Stack({ home, env: process.env, notice: (text) => console.log(`  ! ${text}`) });
  stack = running;
  await running.checkPort();
  const { NATS_URL, DATABASE_URL } = process.env;
  if (!NATS_URL) {
    await step('find nats-server', () => ensureNatsServer((line) => console.log(`\r  … ${line}`)));
    await step('start NATS', () => running.startNats());
  }
  if (!DATABASE_URL) await step('start PostgreSQL', () => running.startPostgres());
  await step('start auth, registry, notifier, gateway', () =>
    running.startApps((app) =>
      followLog(app.logFile, (line) => console.log(`  ${app.name.padEnd(8)} ${line}`)),
    ),
  );
  const tokens = await signTokens(running.secrets.jwt);
  await step('create the audience demo', () => createAudience(running.url, tokens.POSTHORN_TOKEN_SERVICE));
  const envFile = writeValues(running, tokens);
  // The children are unreferenced, so that a failed start ends by itself; a good one stays.
  setInterval(() => {}, 2 ** 30);
  console.log(welcome(running, tokens.POSTHORN_TOKEN_SERVICE, envFile));
}

/** Once, however many signals come: npm passes on those that the terminal has sent already. */
function stop() {
  stopping ??= (async () => {
    if (stack) {
      console.log('');
      await stack.stop((name, end) => step(`stop ${name}`, end));
    }
    unlock();
  })();
  return stopping;
}

/** @param {string} jwtSecret */
async function signTokens(jwtSecret) {
  const { signToken } = await import('./embedded/token.mjs');
  const exp = Math.floor(Date.now() / 1000) + TOKEN_DAYS * 24 * 3600;
  const sign = (/** @type {string} */ sub, /** @type {string} */ role) =>
    signToken(jwtSecret, { aud: 'demo', sub, role, exp });
  return {
    POSTHORN_TOKEN_SERVICE: await sign('demo-service', 'service'),
    POSTHORN_TOKEN_ADMIN: await sign('demo-admin', 'admin'),
    POSTHORN_TOKEN_ALICE: await sign('alice', 'user'),
    POSTHORN_TOKEN_BOB: await sign('bob', 'user'),
  };
}

/**
 * @param {string} url
 * @param {string} token
 */
async function createAudience(url, token) {
  const response = await fetch(`${url}/v1/audience`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  });
  if (!response.ok)
    throw new Error(`POST /v1/audience answered ${response.status}: ${await response.text()}`);
}

/**
 * @param {import('./stack.mjs').Stack} running
 * @param {Record<string, string>} tokens
 */
function writeValues(running, tokens) {
  const file = environmentFile(home);
  writeEnvironment(file, {
    POSTHORN_URL: running.url,
    POSTHORN_HOME: home,
    NATS_URL: running.natsUrl,
    DATABASE_URL: running.databaseUrl,
    JWT_SECRET: running.secrets.jwt,
    KEY_SECRET: running.secrets.key,
    ...tokens,
  });
  return file;
}

/**
 * @param {import('./stack.mjs').Stack} running
 * @param {string} token
 * @param {string} envFile
 */
function welcome({ url, demo }, token, envFile) {
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const near = relative(root, envFile);
  const source = near.startsWith('..') ? envFile : `./${near}`;
  const invite = JSON.stringify({
    topic: 'community:membership:invite',
    action: 'publish',
    message: { author: 'alice', target: 'bob', community: 'chess-club' },
  });
  return `
Ready after ${seconds} s: ${url}
${demo ? `Demo: ${url}/demo\n` : ''}API:  ${url}/docs
Logs: ${join(home, 'logs')}

A token of the audience demo, role service, valid for ${TOKEN_DAYS} days:
${token}

Three commands to try, in another terminal in this folder: listen as bob;
invite bob into a chess club; read bob's inbox (kill $! ends the listening).

. ${source}; node tools/listen.mjs --url "$POSTHORN_URL" --token "$POSTHORN_TOKEN_BOB" usernotification:created & sleep 2
curl -sS "$POSTHORN_URL/v1/hook" -H "Authorization: Bearer $POSTHORN_TOKEN_SERVICE" -H 'Content-Type: application/json' -d '${invite}' -w '\\n'; sleep 1
curl -sS "$POSTHORN_URL/v1/notifications" -H "Authorization: Bearer $POSTHORN_TOKEN_BOB" -w '\\n'

Ctrl-C stops everything.
`;
}
