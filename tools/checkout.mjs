import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** The folder of the checkout. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The four applications, in the order in which they are started; they are stopped in the reverse one. */
export const apps = /** @type {const} */ (['auth', 'registry', 'notifier', 'gateway']);

/** @typedef {(typeof apps)[number]} AppName */

/** @param {AppName} app */
export function entryOf(app) {
  return join(root, 'dist', 'apps', app, 'src', 'main.js');
}

const stampFile = join(root, 'dist', '.sources');

/** Whether `dist/` was built from the sources as they are now. */
export function buildIsFresh() {
  return (
    existsSync(stampFile) &&
    readFileSync(stampFile, 'utf8') === sourcesHash() &&
    apps.every((app) => existsSync(entryOf(app)))
  );
}

export { stampFile };

/** A hash over everything that a build reads: the sources without their specs, the configuration, the dependencies. */
export function sourcesHash() {
  const hash = createHash('sha256');
  for (const file of [
    ...compiledSources(),
    'tsconfig.json',
    'tsconfig.build.json',
    'nest-cli.json',
    'package-lock.json',
  ]) {
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update('\0');
  }
  return hash.digest('hex');
}

function compiledSources() {
  return ['apps', 'libs']
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter(
      (entry) =>
        entry.isFile() && /\.(ts|json|html|css|js|svg)$/.test(entry.name) && !entry.name.endsWith('.spec.ts'),
    )
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((file) => !file.startsWith(join('libs', 'testing')))
    .sort();
}

/**
 * A module of the build. Not imported by name: what is not built yet would not type-check.
 * @param {string} path under dist/
 * @returns {Promise<any>}
 */
export function built(path) {
  return import(pathToFileURL(join(root, 'dist', path)).href);
}
