/** The client SDK as pages and other repositories get it: one small script, and a package that asks for nothing. */
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { createContext, runInContext } from 'node:vm';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { CATALOGUE, PROBLEMS } from '@posthorn/contracts';
import { type TempDir, tempDir } from '@posthorn/testing';
import { topicName } from '../libs/client/src/topic.js';
import { bundleClient } from '../tools/client-script.mjs';
import { pack } from '../tools/pack.mjs';

const run = promisify(execFile);
const root = dirname(import.meta.dirname);
const source = join(root, 'libs', 'client');

let dir: TempDir;
let script: string;

beforeAll(async () => {
  dir = await tempDir();
  const file = join(dir.path, 'posthorn.min.js');
  await bundleClient(file);
  script = readFileSync(file, 'utf8');
});
afterAll(async () => {
  await dir?.[Symbol.asyncDispose]();
});

describe('the script', () => {
  it('is under 14 KiB gzipped, the inbox with it', () => {
    expect(gzipSync(script, { level: 9 }).length).toBeLessThan(14 * 1_024);
  });

  it('sets its globals in a page, and needs nothing of Node', () => {
    const page = createContext({ setTimeout, clearTimeout, AbortController, TextEncoder, TextDecoder });
    runInContext(script, page);
    expect(Object.keys(page).sort()).toEqual(expect.arrayContaining(['Posthorn', 'PosthornError', 'PubSub']));
    expect(runInContext('typeof Posthorn + typeof PubSub.subscribe + typeof PubSub.publish', page)).toBe(
      'functionfunctionfunction',
    );
    expect(() => runInContext('new Posthorn({ url: "/", getToken() {} })', page)).toThrow('url must begin');
    expect(script).not.toMatch(/\beval\(|new Function|\bprocess\.|\brequire\(|\bBuffer\b/);
  });
});

describe('the sources', () => {
  const files = readdirSync(join(source, 'src')).filter((file) => !file.endsWith('.spec.ts'));

  it('import nothing but each other', () => {
    for (const file of files) {
      const text = readFileSync(join(source, 'src', file), 'utf8');
      for (const [, from] of text.matchAll(/from '([^']+)'/g))
        expect([file, from]).toEqual([file, expect.stringMatching(/^\.\//)]);
    }
  });

  it('know every code of the catalogue, and every template of names', () => {
    const errors = readFileSync(join(source, 'src', 'error.ts'), 'utf8');
    const known = errors.slice(0, errors.indexOf('/**\n * Codes of the SDK')).match(/(?<=\| ')\w+/g);
    expect(known?.sort()).toEqual(Object.keys(PROBLEMS).sort());
    for (const { name, parameter } of CATALOGUE.values()) {
      if (!parameter || parameter.hidden) continue;
      const head = name.split(/[:/.]/);
      expect(topicName(`${name}.a.b:c`)).toEqual({
        key: `${head.join('/')}/a.b:c`,
        segments: [...head, 'a.b:c'],
        keyed: true,
      });
    }
  });
});

describe('the package', () => {
  it('asks for no other, and its README compiles in a project for browsers and in one for Node', async () => {
    const packages = join(dir.path, 'packages');
    await pack(packages, ['client']);
    const target = join(dir.path, 'project', 'node_modules', '@posthorn', 'client');
    mkdirSync(target, { recursive: true });
    const tarball = readdirSync(packages).find((file) => file.startsWith('posthorn-client-'));
    await run('tar', ['xzf', join(packages, tarball ?? ''), '-C', target, '--strip-components=1']);
    const manifest = JSON.parse(readFileSync(join(target, 'package.json'), 'utf8'));
    const { version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(manifest).toMatchObject({ version, license, type: 'module' });
    expect([manifest.dependencies, manifest.peerDependencies]).toEqual([undefined, undefined]);
    const contents = readdirSync(join(target, 'dist'));
    expect(contents).toEqual(expect.arrayContaining(['index.js', 'index.d.ts', 'posthorn.min.js']));
    expect(contents.filter((file) => /spec|\.map$/.test(file))).toEqual([]);
    const project = join(dir.path, 'project');
    const readme = readFileSync(join(target, 'README.md'), 'utf8');
    const page = [...readme.matchAll(/^```ts\n\/\/ page\.ts\n([\s\S]*?)^```$/gm)].map(([, block]) => block);
    writeFileSync(join(project, 'page.ts'), page.join('\n'));
    writeFileSync(join(project, 'package.json'), '{"type":"module"}');
    const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    const config = {
      module: 'nodenext',
      target: 'es2022',
      lib: ['es2022', 'dom'],
      types: [],
      strict: true,
      noEmit: true,
    };
    writeFileSync(
      join(project, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: config, files: ['page.ts'] }),
    );
    const findings = await run(process.execPath, [compiler, '-p', project]).then(
      () => '',
      ({ stdout }) => stdout,
    );
    expect(findings).toBe('');
    const { stdout } = await run(
      process.execPath,
      ['-e', "import('@posthorn/client').then((m) => console.log(Object.keys(m).sort().join()))"],
      { cwd: project },
    );
    expect(stdout.trim()).toBe('Posthorn,PosthornError,PubSub,Rooms');
  }, 120_000);
});
