/** The client SDK as one script for pages: IIFE, ES2020, globals `Posthorn`, `PubSub` and `PosthornError`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { root } from './checkout.mjs';

/** Where `npm run build` puts it. */
export const scriptFile = join(root, 'dist', 'client', 'posthorn.min.js');

/**
 * ES2020 has no private names, and esbuild's translation of them is a WeakMap for each: as properties whose names are
 * shortened they cost a third, and a script's inside is nobody's to call either.
 * @type {import('esbuild').Plugin}
 */
const privateNames = {
  name: 'private names',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]client[\\/]src[\\/].*\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replace(/#(?=[A-Za-z]\w*)/g, '$$_'),
      loader: 'ts',
    }));
  },
};

/** Writes the script. */
export async function bundleClient(file = scriptFile) {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'libs', 'client', 'src', 'script.ts')],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2020',
    platform: 'browser',
    write: false,
    plugins: [privateNames],
    mangleProps: /^\$_/,
    tsconfigRaw: { compilerOptions: { useDefineForClassFields: false } },
    banner: { js: '/*! @posthorn/client | Apache-2.0 */' },
    legalComments: 'inline',
  });
  mkdirSync(dirname(file), { recursive: true });
  for (const { contents } of outputFiles) writeFileSync(file, contents);
}
