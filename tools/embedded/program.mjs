/** Programs that no npm package holds: looked for on this machine, else installed by its package manager. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/**
 * @typedef {object} Program
 * @property {[string, ...string[]]} names as it is called on PATH, or absolute paths, the best one first
 * @property {string} variable of the environment, which may name its path
 * @property {{ apt: string, brew?: string }} packages
 * @property {string} [service] that its Debian package starts, and that nobody here asked for
 * @property {string[]} otherwise what else a person can do, as lines of text
 */

/**
 * The path of a program.
 * @param {Program} program
 * @param {(line: string) => void} [log]
 * @returns {string}
 */
export function ensureProgram(program, log = () => {}) {
  const found = find(program);
  if (found) return found;
  const { packages, service, otherwise } = program;
  const [name] = program.names;
  const root = process.getuid?.() === 0;
  const sudo = root ? [] : ['sudo', '-n'];
  if (onPath('apt-get')) {
    log(`installing ${name} with apt-get`);
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    run([...sudo, 'apt-get', 'update'], env);
    run([...sudo, 'apt-get', 'install', '-y', packages.apt], env);
    if (service && existsSync('/run/systemd/system'))
      run([...sudo, 'systemctl', 'disable', '--now', service], env);
  } else if (packages.brew && onPath('brew')) {
    log(`installing ${name} with Homebrew`);
    run(['brew', 'install', packages.brew], process.env);
  }
  const installed = find(program);
  if (installed) return installed;
  throw new Error(
    [
      `No ${name} program was found, and this machine’s package manager did not bring one.`,
      ...(onPath('apt-get') && !root ? [`Install it with: sudo apt-get install ${packages.apt}`] : []),
      ...otherwise,
    ].join('\n'),
  );
}

/** @param {Program} program */
function find({ names, variable }) {
  const named = process.env[variable];
  if (named) {
    if (isProgram(named)) return named;
    throw new Error(
      `${variable} is "${named}", which is not a program that can be run. Set it to the path of ${names[0]}.`,
    );
  }
  return names.map((name) => (isAbsolute(name) ? [name].find(isProgram) : onPath(name))).find(Boolean);
}

/** @param {string} program */
function onPath(program) {
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/sbin',
    '/usr/local/bin',
    '/opt/homebrew/bin',
  ];
  return folders.map((folder) => join(folder, program)).find(isProgram);
}

/** @param {string} path */
function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Failures are left to the search that follows: what counts is whether there is a program.
 * @param {string[]} command
 * @param {NodeJS.ProcessEnv} env
 */
function run([program = '', ...args], env) {
  spawnSync(program, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
}
