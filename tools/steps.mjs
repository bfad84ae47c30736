import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './checkout.mjs';

/**
 * Does one step and prints a line with its name and time. A step that had nothing to do prints nothing.
 * @template T
 * @param {string} name
 * @param {() => Promise<T> | T} action
 * @returns {Promise<T>}
 */
export async function step(name, action) {
  const started = performance.now();
  if (process.stdout.isTTY) process.stdout.write(`  … ${name}`);
  try {
    const result = await action();
    line('✓', name, started);
    return result;
  } catch (error) {
    line('✗', name, started);
    throw error;
  }
}

/**
 * @param {string} mark
 * @param {string} name
 * @param {number} started
 */
function line(mark, name, started) {
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const clear = process.stdout.isTTY ? '\r\x1b[K' : '';
  process.stdout.write(`${clear}  ${mark} ${name.padEnd(44)} ${seconds.padStart(6)} s\n`);
}

/**
 * Runs a program to its end.
 * @param {string} program
 * @param {string[]} args
 * @param {{ quiet?: boolean, env?: NodeJS.ProcessEnv }} [options] quiet: its output is shown only when it fails
 * @throws when it does not end with code 0
 */
export async function run(program, args, { quiet = false, env = process.env } = {}) {
  const child = spawn(program, args, {
    cwd: root,
    env,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += chunk));
  const end = () => void child.kill();
  process.once('exit', end);
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  process.off('exit', end);
  if (code !== 0)
    throw new Error(`${output}\n${[program, ...args].join(' ')} ended with code ${code}`.trim());
}

/** Installs the dependencies where they are not those of package-lock.json. */
export async function installDependencies() {
  if (dependenciesAreFresh()) return;
  const npm = process.env.npm_execpath;
  const [program, args] = npm ? [process.execPath, [npm]] : ['npm', []];
  await step('install the dependencies', () =>
    run(program, [...args, 'ci', '--no-audit', '--no-fund'], { quiet: true }),
  );
}

function dependenciesAreFresh() {
  const installedFile = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installedFile)) return false;
  /** @param {string} file */
  const packages = (file) =>
    /** @type {Record<string, any>} */ (JSON.parse(readFileSync(file, 'utf8')).packages);
  const installed = packages(installedFile);
  return Object.entries(packages(join(root, 'package-lock.json'))).every(
    ([path, wanted]) => path === '' || wanted.optional || installed[path]?.version === wanted.version,
  );
}
