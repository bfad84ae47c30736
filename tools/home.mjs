import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { root } from './checkout.mjs';
import { reachableByDatabase } from './embedded/postgres.mjs';

/**
 * Where `npm start` keeps everything. As root the database runs as another user, for whom a checkout under /root
 * is closed.
 * @param {NodeJS.ProcessEnv} env
 */
export function homeOf({ POSTHORN_HOME, DATABASE_URL }) {
  if (POSTHORN_HOME) return resolve(POSTHORN_HOME);
  if (DATABASE_URL || reachableByDatabase(root)) return join(root, '.posthorn');
  const hash = createHash('sha256').update(root).digest('hex').slice(0, 8);
  return join('/var/lib/posthorn', `${basename(root)}-${hash}`);
}

/** The file of a home that says where everything is, for `. dev.env` in a shell. */
export function environmentFile(/** @type {string} */ home) {
  return join(home, 'dev.env');
}

/**
 * Made once: a restart must not end everybody's sessions, nor lose the way into the database.
 * @template {Record<string, string>} T
 * @param {string} file
 * @param {() => T} make
 * @returns {T}
 */
export function keptSecrets(file, make) {
  if (!existsSync(file)) writeFileSync(file, `${JSON.stringify(make(), null, 2)}\n`, { mode: 0o600 });
  return JSON.parse(readFileSync(file, 'utf8'));
}

/**
 * @param {NodeJS.ProcessEnv} env
 * @param {string} name
 * @param {number} fallback
 */
export function portOf(env, name, fallback) {
  const port = Number(env[name] || fallback);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new Error(`${name} is ${JSON.stringify(env[name])}: it wants a port, 1 to 65535`);
}

/**
 * Writes what any tool needs to connect; for `. <file>` in a shell.
 * @param {string} file
 * @param {Record<string, string>} values
 */
export function writeEnvironment(file, values) {
  const lines = Object.entries(values).map(
    ([name, value]) => `${name}='${value.replaceAll("'", "'\\''")}'\n`,
  );
  rmSync(file, { force: true });
  writeFileSync(file, lines.join(''), { mode: 0o600 });
}
