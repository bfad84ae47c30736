/**
 * npm run secrets [-- <file>]: makes the secrets of a new installation and writes them to an environment file, `.env`
 * when none is named, for docker compose and for k8s/overlays/development. An existing file is left as it is: new
 * secrets would end everybody's sessions, and lock the apps out of the database.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './checkout.mjs';

/**
 * New secrets, by the name of their variable.
 * @returns {Record<string, string>}
 */
export function newSecrets() {
  // It begins with a letter: nats-server reads a variable as it would read its configuration, where 12e9 is a number.
  const secret = () => `s${randomBytes(32).toString('hex')}`;
  const database = secret();
  return {
    JWT_SECRET: secret(),
    KEY_SECRET: secret(),
    POSTGRES_PASSWORD: database,
    DATABASE_URL: `postgres://posthorn:${database}@postgres:5432/posthorn`,
    NATS_PASSWORD_AUTH: secret(),
    NATS_PASSWORD_REGISTRY: secret(),
    NATS_PASSWORD_NOTIFIER: secret(),
    NATS_PASSWORD_GATEWAY: secret(),
    // Between the servers of a NATS cluster.
    NATS_PASSWORD_ROUTE: secret(),
  };
}

/**
 * @param {string} file
 * @throws where the file exists
 */
export function writeSecrets(file) {
  const lines = Object.entries(newSecrets()).map(([name, value]) => `${name}=${value}\n`);
  try {
    writeFileSync(file, lines.join(''), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    throw new Error(`${file} exists, and is left as it is. Remove it to have new secrets.`, { cause: error });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , named] = process.argv;
  // npm changes to the checkout, and says where it was called.
  const file = named ? resolve(process.env.INIT_CWD ?? '.', named) : join(root, '.env');
  try {
    writeSecrets(file);
    console.log(`Wrote ${file}, for nobody but you to read.`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
