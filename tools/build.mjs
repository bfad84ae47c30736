/**
 * npm run build: compiles the apps and libs to dist/, and the client SDK to one script. A tree that did not change
 * since is left as it is; `--force` builds all the same.
 */
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildIsFresh, root, sourcesHash, stampFile } from './checkout.mjs';
import { run, step } from './steps.mjs';

const demoPage = join('apps', 'gateway', 'src', 'faces', 'demo', 'page');

/** @param {{ force?: boolean, quiet?: boolean }} [options] quiet: nothing is printed */
export async function build({ force = false, quiet = false } = {}) {
  if (!force && buildIsFresh()) return;
  // Taken first: what is edited while the compiler runs is not in the result.
  const hash = sourcesHash();
  const compile = async () => {
    rmSync(join(root, 'dist'), { recursive: true, force: true });
    const nest = join(root, 'node_modules', '@nestjs', 'cli', 'bin', 'nest.js');
    // All apps and libs as one program: `nest build --all` compiles the libs once per app, and takes three times as long.
    await run(process.execPath, [nest, 'build', 'gateway', '-p', 'tsconfig.build.json'], { quiet: true });
    // The compiler carries no files that are not its own.
    cpSync(join(root, demoPage), join(root, 'dist', demoPage), { recursive: true });
    // Not before: `npm start` loads this file ahead of the dependencies.
    const { bundleClient } = await import('./client-script.mjs');
    await bundleClient();
    writeFileSync(stampFile, hash);
  };
  await (quiet ? compile() : step('build', compile));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await build({ force: process.argv.includes('--force') });
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
