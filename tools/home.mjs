import { createHash } from 'node:crypto';
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
