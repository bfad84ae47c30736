import { execFile } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type TempDir, tempDir } from '@posthorn/testing';
import { newSecrets } from './secrets.mjs';

const run = promisify(execFile);

let home: TempDir;

beforeAll(async () => {
  home = await tempDir();
});
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

describe('npm run secrets', () => {
  it('writes a file that its owner alone may read, where it was called', async () => {
    const { stdout } = await run(process.execPath, ['tools/secrets.mjs', 'some.env'], {
      env: { PATH: process.env.PATH, INIT_CWD: home.path },
    });
    const file = join(home.path, 'some.env');
    expect(stdout).toContain(file);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => line.split('=')[0])).toEqual(Object.keys(newSecrets()));
    for (const line of lines) expect(stdout).not.toContain(line.split('=')[1]);
  });

  it('leaves a file that exists as it is', async () => {
    const file = join(home.path, 'kept.env');
    await run(process.execPath, ['tools/secrets.mjs', file]);
    const before = readFileSync(file, 'utf8');
    await expect(run(process.execPath, ['tools/secrets.mjs', file])).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`${file} exists`),
    });
    expect(readFileSync(file, 'utf8')).toBe(before);
  });

  it('makes secrets that are long enough, of which no two are the same, and that nats-server reads as text', () => {
    const { DATABASE_URL, ...secrets } = newSecrets();
    for (const secret of Object.values(secrets)) expect(secret).toMatch(/^[a-z][0-9a-z]{40,}$/);
    expect(new Set(Object.values(secrets)).size).toBe(Object.keys(secrets).length);
    expect(new URL(DATABASE_URL ?? '').password).toBe(secrets.POSTGRES_PASSWORD);
  });
});
