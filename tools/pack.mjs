/** npm run pack: makes of the two SDKs, and of the contracts that one stands on, packages for other repositories. */
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from './checkout.mjs';
import { bundleClient } from './client-script.mjs';
import { run, step } from './steps.mjs';

/** In the order in which they are compiled: each knows those before it by their declarations. */
const PACKAGES = ['contracts', 'bus', 'client'];
/** Also runs where there is no Node: it is compiled for browsers, without Node's types. */
const FOR_BROWSERS = 'client';

/**
 * Compiles the packages into folders of `out`, and packs each: `posthorn-<name>-<version>.tgz` beside them.
 * @param {string} [out]
 * @param {readonly string[]} [packages] those that they stand on first
 */
export async function pack(out = join(root, 'dist', 'packages'), packages = PACKAGES) {
  rmSync(out, { recursive: true, force: true });
  for (const name of packages) {
    const source = join(root, 'libs', name);
    const folder = join(out, name);
    mkdirSync(folder, { recursive: true });
    await step(`compile @posthorn/${name}`, () => compile(source, folder, out));
    if (name === FOR_BROWSERS) await bundleClient(join(folder, 'dist', 'posthorn.min.js'));
    cpSync(join(source, 'package.json'), join(folder, 'package.json'));
    cpSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
    cpSync(join(source, 'README.md'), join(folder, 'README.md'));
    await step(`pack @posthorn/${name}`, () => npm('pack', folder, '--pack-destination', out));
  }
}

/**
 * @param {string} source
 * @param {string} folder
 * @param {string} out
 */
async function compile(source, folder, out) {
  const known = PACKAGES.map((name) => [`@posthorn/${name}`, [join(out, name, 'dist', 'index.d.ts')]]);
  const project = join(out, 'tsconfig.json');
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      rootDir: join(source, 'src'),
      outDir: join(folder, 'dist'),
      declaration: true,
      sourceMap: false,
      paths: Object.fromEntries(known),
      typeRoots: [join(root, 'node_modules', '@types')],
      ...(source.endsWith(FOR_BROWSERS) ? { types: [], lib: ['es2022', 'dom'], target: 'es2022' } : {}),
    },
    include: [join(source, 'src')],
    exclude: [join(source, '**', '*.spec.ts')],
  };
  writeFileSync(project, JSON.stringify(config));
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [compiler, '-p', project], { quiet: true });
  rmSync(project);
}

/** @param {string[]} args */
function npm(...args) {
  const { npm_execpath: path } = process.env;
  const [program, first] = path ? [process.execPath, [path]] : ['npm', []];
  return run(program, [...first, ...args], { quiet: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await pack();
    console.log(`  in ${join(relative(process.cwd(), root), 'dist', 'packages')}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
