/** Runs the numbered examples, examples/01-… and on, one after the other against an installation of their own. */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { root } from './checkout.mjs';
import { readableLine } from './embedded/log.mjs';
import { freePort } from './embedded/process.mjs';
import { signToken } from './embedded/token.mjs';
import { Stack } from './stack.mjs';

const BUDGET_MS = 60_000;

/**
 * What an example is run with, by its ending, and what it needs beside that. A machine may lack what is not Node.
 * @type {Record<string, { command: string, needs: string[] }>}
 */
const INTERPRETERS = {
  '.mjs': { command: process.execPath, needs: [] },
  '.py': { command: 'python3', needs: ['python3'] },
  '.sh': { command: 'sh', needs: ['curl'] },
};

/** The examples, in order. */
export function examples() {
  const folder = join(root, 'examples');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => /^\d\d-/.test(file) && extname(file) in INTERPRETERS)
    .sort();
}

/**
 * @param {(example: string, outcome: 'passed' | 'failed' | 'skipped', output: string, ms: number) => void} report
 *   of what was skipped, `output` says what this machine lacks
 * @returns {Promise<{ passed: number, failed: number, skipped: number }>}
 */
export async function runExamples(report) {
  const home = mkdtempSync(join(tmpdir(), 'posthorn-examples-'));
  chmodSync(home, 0o755);
  const [PORT, NATS_PORT, DATABASE_PORT] = await Promise.all([freePort(), freePort(), freePort()]);
  const { PATH, HOME } = process.env;
  const stack = new Stack({
    home,
    env: {
      PATH,
      HOME,
      PORT: String(PORT),
      NATS_PORT: String(NATS_PORT),
      DATABASE_PORT: String(DATABASE_PORT),
    },
    notice: console.error,
  });
  const totals = { passed: 0, failed: 0, skipped: 0 };
  try {
    await stack.startNats();
    await stack.startPostgres();
    await stack.startApps();
    const env = { PATH, HOME, ...(await environment(stack)) };
    for (const example of examples()) {
      const lacking = missing(example, env);
      if (lacking.length > 0) {
        report(example, 'skipped', `${lacking.join(' and ')} cannot be run here`, 0);
        totals.skipped++;
        continue;
      }
      const began = performance.now();
      const { code, output } = await runExample(example, env);
      const outcome = code === 0 ? 'passed' : 'failed';
      const shown = code === 0 ? output : `${output}\n${warnings(join(home, 'logs'))}`;
      report(example, outcome, shown, performance.now() - began);
      totals[outcome]++;
    }
    return totals;
  } finally {
    await stack.stop();
    rmSync(home, { recursive: true, force: true });
  }
}

/**
 * Programs that an example needs and this machine does not have.
 * @param {string} example
 * @param {NodeJS.ProcessEnv} env
 */
function missing(example, env) {
  const { needs = [] } = INTERPRETERS[extname(example)] ?? {};
  return needs.filter((program) => spawnSync(program, ['--version'], { env, stdio: 'ignore' }).status !== 0);
}

/**
 * What the apps complained about, for whoever looks into a failure.
 * @param {string} logs
 */
function warnings(logs) {
  return readdirSync(logs)
    .flatMap((file) => {
      const lines = readFileSync(join(logs, file), 'utf8').split('\n').map(readableLine).filter(Boolean);
      return lines.slice(-20).map((line) => `${file} ${line}`);
    })
    .join('\n');
}

/**
 * What an example finds in its environment: the same as in the dev.env of `npm start`, with the audience there.
 * @param {Stack} stack
 */
async function environment(stack) {
  const sign = (/** @type {string} */ sub, role = 'user') => signToken(stack.secrets.jwt, { sub, role });
  const service = await sign('demo-service', 'service');
  await fetch(`${stack.url}/v1/audience`, {
    method: 'POST',
    headers: { authorization: `Bearer ${service}` },
  });
  return {
    POSTHORN_URL: stack.url,
    NATS_URL: stack.natsUrl,
    DATABASE_URL: stack.databaseUrl,
    JWT_SECRET: stack.secrets.jwt,
    KEY_SECRET: stack.secrets.key,
    POSTHORN_TOKEN_SERVICE: service,
    POSTHORN_TOKEN_ADMIN: await sign('demo-admin', 'admin'),
    POSTHORN_TOKEN_ALICE: await sign('alice'),
    POSTHORN_TOKEN_BOB: await sign('bob'),
  };
}

/**
 * @param {string} example
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<{ code: number | null, output: string }>}
 */
async function runExample(example, env) {
  const { command = '' } = INTERPRETERS[extname(example)] ?? {};
  const child = spawn(command, [join(root, 'examples', example)], {
    cwd: root,
    env,
    timeout: BUDGET_MS,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const code = await new Promise((resolve) => child.on('close', resolve));
  return { code, output };
}
