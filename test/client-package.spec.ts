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
import ts from 'typescript';
import { topicName } from '../libs/client/src/topic.js';
import { bundleClient, INNER_NAMES } from '../tools/client-script.mjs';
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
  it('is under 12 KiB gzipped, the inbox with it', () => {
    expect(gzipSync(script, { level: 9 }).length).toBeLessThan(12 * 1_024);
  });

  it('shortens names of its inside alone: none of the API, of a frame, of an answer, of the platform', () => {
    const names = namesOfSources();
    expect(INNER_NAMES.filter((name) => names.get(name) !== true)).toEqual([]);
    // The proof itself: what is known to be of the outside is told apart.
    const outside = [
      'topic',
      'code',
      'since',
      'state',
      'now',
      'text',
      'key',
      'position',
      'unread_count',
      'after_ms',
    ];
    expect(outside.filter((name) => names.get(name) !== false)).toEqual([]);
  });

  it('sets its globals in a page, and needs nothing of Node', () => {
    const page = createContext({
      performance,
      setTimeout,
      clearTimeout,
      AbortController,
      TextEncoder,
      TextDecoder,
    });
    runInContext(script, page);
    expect(Object.keys(page).sort()).toEqual(expect.arrayContaining(['Posthorn', 'PosthornError', 'PubSub']));
    expect(runInContext('typeof Posthorn + typeof PubSub.subscribe + typeof PubSub.publish', page)).toBe(
      'functionfunctionfunction',
    );
    expect(() => runInContext('new Posthorn({ url: "/", getToken() {} })', page)).toThrow('url must begin');
    expect(script).not.toMatch(/\beval\(|new Function|\bprocess\.|\brequire\(|\bBuffer\b/);
  });
});

/** Names of properties in the client's sources, each with whether all of its uses are declared inside of it. */
function namesOfSources(): Map<string, boolean> {
  const inside = /[\\/]client[\\/]src[\\/](machine[\\/]\w+|place|topic|transport|posthorn)\.ts$/;
  const program = ts.createProgram([join(source, 'src', 'script.ts')], {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'],
    types: [],
    strict: true,
  });
  const checker = program.getTypeChecker();
  const names = new Map<string, boolean>();
  /** A name that is used on values of a type. Without one, nothing is known of whom it is told. */
  const use = ({ text }: ts.Identifier, type: ts.Type | undefined) => {
    const types = type?.isUnion() ? type.types : type ? [type] : [];
    const declared = types.flatMap((one) => {
      const property = checker.getPropertyOfType(checker.getApparentType(one), text);
      return property?.declarations ?? [];
    });
    const isInner = declared.length > 0 && declared.every((at) => isOwn(at));
    names.set(text, isInner && names.get(text) !== false);
  };
  /** Declared inside, and not where something from outside is said to be of a type. */
  const isOwn = (at: ts.Node) =>
    inside.test(at.getSourceFile().fileName) &&
    !ts.findAncestor(
      at,
      (node) =>
        ts.isAsExpression(node) &&
        ts.isTypeLiteralNode(node.type) &&
        node.type.pos <= at.pos &&
        at.end <= node.type.end,
    );
  const visit = (node: ts.Node): void => {
    const { name } = node as { name?: ts.Node };
    if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.name))
      use(node.name, checker.getNonNullableType(checker.getTypeAtLocation(node.expression)));
    else if (ts.isBindingElement(node) && ts.isObjectBindingPattern(node.parent)) {
      const property = node.propertyName ?? node.name;
      if (ts.isIdentifier(property) && !node.dotDotDotToken)
        use(property, checker.getNonNullableType(checker.getTypeAtLocation(node.parent)));
    } else if (ts.isObjectLiteralElement(node) && name && ts.isIdentifier(name)) {
      const type = checker.getContextualType(node.parent as ts.ObjectLiteralExpression);
      use(name, type && checker.getNonNullableType(type));
    } else if ((ts.isTypeElement(node) || ts.isClassElement(node)) && name && ts.isIdentifier(name)) {
      names.set(name.text, isOwn(node) && names.get(name.text) !== false);
    }
    ts.forEachChild(node, visit);
  };
  for (const file of program.getSourceFiles()) if (file.fileName.startsWith(join(source, 'src'))) visit(file);
  return names;
}

describe('the sources', () => {
  const files = readdirSync(join(source, 'src'), { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.ts') && !file.endsWith('.spec.ts'),
  );

  it('import nothing but each other', () => {
    for (const file of files) {
      const text = readFileSync(join(source, 'src', file), 'utf8');
      for (const [, from] of text.matchAll(/from '([^']+)'/g))
        expect([file, from]).toEqual([file, expect.stringMatching(/^\.\.?\//)]);
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
    expect(stdout.trim()).toBe('Inbox,Posthorn,PosthornError,PubSub,Rooms');
  }, 120_000);
});
