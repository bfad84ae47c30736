/** The server SDK as other repositories get it: packed, unpacked elsewhere, compiled against and run. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Collected, prepareBus, startNats, type TempDir, type TestNats, tempDir } from '@posthorn/testing';
import { pack } from '../tools/pack.mjs';

const run = promisify(execFile);
const root = dirname(import.meta.dirname);
const modules = join(root, 'node_modules');
const read = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
const PEERS = ['@nestjs/common', '@nestjs/core', '@nestjs/microservices', 'reflect-metadata', 'rxjs'];

let dir: TempDir;
let nats: TestNats;
let plain: string;
let nest: string;

beforeAll(async () => {
  dir = await tempDir();
  nats = await startNats();
  await prepareBus(nats, { audiences: ['demo'] });
  const packages = join(dir.path, 'packages');
  await pack(packages, ['contracts', 'bus']);
  plain = await project('plain', packages);
  nest = await project('nest', packages, PEERS);
}, 120_000);

afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
  await dir?.[Symbol.asyncDispose]();
});

/** A project somewhere else, with the packages installed, and third parties linked from this checkout. */
async function project(name: string, packages: string, peers: readonly string[] = []): Promise<string> {
  const folder = join(dir.path, name);
  const third = new Set(['@types/node', ...peers]);
  for (const own of ['contracts', 'bus']) {
    const target = join(folder, 'node_modules', '@posthorn', own);
    mkdirSync(target, { recursive: true });
    const tarball = readdirSync(packages).find((file) => file.startsWith(`posthorn-${own}-`));
    await run('tar', ['xzf', join(packages, tarball ?? ''), '-C', target, '--strip-components=1']);
    for (const dependency of Object.keys(read(join(target, 'package.json')).dependencies))
      third.add(dependency);
  }
  for (const dependency of third) {
    if (dependency.startsWith('@posthorn/')) continue;
    const link = join(folder, 'node_modules', dependency);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(modules, dependency), link);
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        module: 'nodenext',
        target: 'es2023',
        lib: ['es2023', 'es2024.string', 'esnext.disposable'],
        types: ['node'],
        strict: true,
        skipLibCheck: false,
        experimentalDecorators: true,
        emitDecoratorMetadata: true,
        outDir: 'out',
        rootDir: 'src',
      },
      include: ['src'],
    }),
  );
  mkdirSync(join(folder, 'src'));
  return folder;
}

/** Compiles a project; its findings, where there are any. */
async function compile(folder: string, files: Record<string, string>): Promise<string> {
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, 'src', file), text);
  const compiler = join(modules, 'typescript', 'bin', 'tsc');
  return run(process.execPath, [compiler, '-p', folder]).then(
    () => '',
    ({ stdout }) => stdout,
  );
}

/** A compiled program at work: what it prints, and how it ends. */
function start(folder: string, program: string) {
  const child = spawn(process.execPath, [join(folder, 'out', program)], {
    cwd: folder,
    env: { PATH: process.env.PATH, NATS_URL: nats.url },
    timeout: 30_000,
  });
  const lines = new Collected<string>();
  createInterface(child.stdout).on('line', (line) => lines.add(line));
  let complaints = '';
  child.stderr.on('data', (data) => (complaints += data));
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, complaints }));
  const end = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return { child, lines, ended, [Symbol.asyncDispose]: end };
}

/** The programs of the package's README: blocks that name the same file follow each other in it. */
function readmePrograms(): Record<string, string> {
  const text = readFileSync(join(plain, 'node_modules', '@posthorn', 'bus', 'README.md'), 'utf8');
  const programs: Record<string, string> = {};
  for (const [, file, block] of text.matchAll(/^```ts\n\/\/ (\S+\.ts)\n([\s\S]*?)^```$/gm)) {
    programs[file!] = `${programs[file!] ?? ''}${block}\n`;
  }
  expect(text.match(/^```ts$/gm)).toHaveLength([...text.matchAll(/^```ts\n\/\/ \S+\.ts$/gm)].length);
  return programs;
}

const only = (programs: Record<string, string>, nestOnes: boolean) =>
  Object.fromEntries(Object.entries(programs).filter(([, text]) => text.includes('@nestjs/') === nestOnes));

describe('the packages', () => {
  it('ask for what this checkout was tested with', () => {
    const { dependencies: wanted, version, license, engines } = read(join(root, 'package.json'));
    for (const name of ['contracts', 'bus']) {
      const manifest = read(join(root, 'libs', name, 'package.json'));
      expect(manifest).toMatchObject({ version, license, engines, type: 'module' });
      for (const [dependency, its] of Object.entries(manifest.dependencies))
        expect([dependency, its]).toEqual([
          dependency,
          dependency.startsWith('@posthorn/') ? version : wanted[dependency],
        ]);
      for (const peer of Object.keys(manifest.peerDependencies ?? {}))
        expect([peer, manifest.peerDependenciesMeta[peer].optional, wanted[peer]]).toEqual([
          peer,
          true,
          expect.any(String),
        ]);
    }
  });

  it('hold what they need and no specs', () => {
    for (const name of ['contracts', 'bus']) {
      const files = readdirSync(join(plain, 'node_modules', '@posthorn', name), { recursive: true }).map(
        String,
      );
      expect(files).toEqual(
        expect.arrayContaining(['LICENSE', 'README.md', 'dist/index.js', 'dist/index.d.ts']),
      );
      expect(files.filter((file) => /spec|\.map$/.test(file))).toEqual([]);
    }
  });
});

const TYPED = `
import { connectPubSub, type PubSub, ProblemError } from '@posthorn/bus';
export function typed(pubsub: PubSub) {
  const join = pubsub.local.topic('community:join');
  void join.publish({ author: 'a', target: { _id: 1 }, community: 2 });
  // @ts-expect-error: no community
  void join.publish({ author: 'a', target: 'b' });
  // @ts-expect-error: an id is no list
  void join.publish({ author: ['a'], target: 'b', community: 'c' });
  join.subscribe(({ author, managers }) => [author, managers?.length]);
  // @ts-expect-error: no such member
  join.subscribe(({ nobody }) => nobody);
  void pubsub.global.topic('any/thing').publish({ any: ['thing'] });
  pubsub.global.topic('any/thing').subscribe((payload) => {
    const text: unknown = payload;
    // @ts-expect-error: unknown
    return payload.any ?? text;
  });
}
// @ts-expect-error: of no audience
connectPubSub({ source: 'x' });
export const refused = new ProblemError('unavailable', 'x').status;
`;

const LOADS = `
import { readdirSync } from 'node:fs';
await import('@posthorn/bus');
await import('@posthorn/bus/platform');
console.log(readdirSync('node_modules').includes('@nestjs'));
await import('@posthorn/bus/nest' as string).catch(({ code }) => console.log(code));
await import('@posthorn/bus/dist/pubsub.js' as string).catch(({ code }) => console.log(code));
`;

describe('@posthorn/bus in a project without Nest', () => {
  it('types documented topics, takes anything on others, and compiles all programs of its README', async () => {
    const programs = only(readmePrograms(), false);
    const [before, closing] = programs['service.ts']!.split(/^(?=.*unsubscribe)/m);
    const untilToldTo = "await new Promise((resolve) => process.stdin.resume().once('end', resolve));\n";
    const service = before + untilToldTo + closing;
    expect(
      await compile(plain, { ...programs, 'service.ts': service, 'typed.ts': TYPED, 'loads.ts': LOADS }),
    ).toBe('');
  }, 60_000);

  it('runs its README: live, durable, patterns, forward', async () => {
    await using service = start(plain, 'service.js');
    const { child, lines, ended } = service;
    const said = [...(await lines.until(5))].sort();
    child.stdin.end();
    expect(await ended).toEqual({ code: 0, signal: null, complaints: '' });
    expect(said).toEqual([
      'audit login:success',
      'durable ann bob community:join 1',
      'forwarded true',
      "live { _id: 456, content: 'Hello' }",
      'stored false',
    ]);
  });

  it('loads without Nest, which its other entry asks for', async () => {
    await using program = start(plain, 'loads.js');
    const { lines, ended } = program;
    expect(await ended).toEqual({ code: 0, signal: null, complaints: '' });
    expect(lines.items).toEqual(['false', 'ERR_MODULE_NOT_FOUND', 'ERR_PACKAGE_PATH_NOT_EXPORTED']);
  });
});

describe('@posthorn/bus/nest in a Nest project', () => {
  it('runs the application of the README: the module, and a handler on a durable consumer', async () => {
    const { 'app.ts': app, ...others } = only(readmePrograms(), true);
    expect(others).toEqual({});
    expect(await compile(nest, { 'app.ts': app! })).toBe('');
    await using service = start(nest, 'app.js');
    const { child, lines, ended } = service;
    // A consumer that is new begins with what is kept: the event of the other program.
    expect([...(await lines.until(2))].sort()).toEqual(['mail to ann 1', 'mail to bob 1']);
    child.kill('SIGTERM');
    expect(await ended).toEqual({ code: null, signal: 'SIGTERM', complaints: '' });
  }, 60_000);
});
