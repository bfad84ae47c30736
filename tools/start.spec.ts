import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { freePort, type TempDir, tempDir } from '@posthorn/testing';
import { buildIsFresh, root } from './checkout.mjs';

/** A program whose output can be awaited line by line. Disposing of it kills it and what it runs in the background. */
class Program implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<number | null>;
  readonly #news = new EventEmitter();

  constructor(command: string, args: string[] = [], env: Record<string, string> = {}) {
    const { PATH, HOME } = process.env;
    this.#child = spawn(command, args, { cwd: root, env: { PATH, HOME, ...env }, detached: true });
    this.#closed = once(this.#child, 'close').then(([code]) => code);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (!stream) continue;
      createInterface(stream).on('line', (line) => {
        this.lines.push(line);
        this.#news.emit('line');
      });
    }
  }

  type(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Resolves with the first line, seen or to come, that matches. */
  async line(pattern: RegExp): Promise<string> {
    for (;;) {
      const found = this.lines.find((line) => pattern.test(line));
      if (found !== undefined) return found;
      const ended = this.#closed.then(() => {
        throw new Error(`ended without ${pattern}:\n${this.lines.join('\n')}`);
      });
      await Promise.race([once(this.#news, 'line'), ended]);
    }
  }

  /** Resolves with the exit code. */
  async ended(): Promise<number | null> {
    return this.#closed;
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.pid && this.#child.exitCode === null) process.kill(-this.#child.pid, 'SIGKILL');
    await this.#closed;
  }
}

describe('npm start', () => {
  let home: TempDir;
  let env: Record<string, string>;
  let posthorn: Program;

  const start = (overrides: Record<string, string> = {}): Program =>
    new Program(process.execPath, ['tools/start.mjs'], { ...env, ...overrides });

  /** What it prints for the reader to paste. */
  const commands = (): string[] => posthorn.lines.filter((line) => /^(\. |curl )/.test(line));

  beforeAll(async () => {
    if (!buildIsFresh()) throw new Error('dist/ is missing or older than the sources: run npm run build');
    home = await tempDir();
    const [PORT, NATS_PORT, DATABASE_PORT] = await Promise.all([freePort(), freePort(), freePort()]);
    env = {
      POSTHORN_HOME: home.path,
      PORT: String(PORT),
      NATS_PORT: String(NATS_PORT),
      DATABASE_PORT: String(DATABASE_PORT),
    };
    posthorn = start();
    await posthorn.line(/^Ctrl-C stops everything/);
  }, 90_000);

  afterAll(async () => {
    await posthorn?.end('SIGTERM');
    await home?.[Symbol.asyncDispose]();
  });

  it('prints three commands that show an invitation arriving, live and in the inbox', async () => {
    const [listen = '', publish = '', inbox = ''] = commands();
    await using shell = new Program('bash');
    shell.type(listen);
    await shell.line(/subscribed .*usernotification:created/);
    shell.type(publish);
    expect(await shell.line(/message .*usernotification:created/)).toContain('community:membership:invite');
    shell.type(inbox);
    expect(await shell.line(/unread_count/)).toContain('"unread_count":1');
  });

  it('serves the demo page that it prints', async () => {
    const url = (await posthorn.line(/^Demo: /)).replace('Demo: ', '');
    const page = await fetch(url);
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    expect((await fetch(`${url}/posthorn.min.js`)).status).toBe(200);
  });

  it('is examined with its own settings by the doctor, from a shell that has sourced its environment', async () => {
    await using shell = new Program('bash');
    shell.type(`set -a; . ${home.path}/dev.env; set +a; node tools/doctor.mjs registry; exit`);
    await shell.line(/streams\.settings: the stream PH_GLOBAL is as wanted/);
  });

  it('keeps addresses and secrets where only their owner can read them', () => {
    for (const file of ['dev.env', 'secrets.json']) {
      expect(statSync(join(home.path, file)).mode & 0o777).toBe(0o600);
    }
  });

  it('refuses to run twice with the same data', async () => {
    await using second = start();
    expect(await second.ended()).toBe(1);
    expect(second.lines.join('\n')).toContain('Posthorn runs already');
  });

  it.each([
    ['PORT', 'the gateway'],
    ['NATS_PORT', 'NATS'],
    ['DATABASE_PORT', 'PostgreSQL'],
  ])('names %s when that port is taken', async (variable, what) => {
    await using other = await tempDir();
    const free = { PORT: await freePort(), NATS_PORT: await freePort(), DATABASE_PORT: await freePort() };
    const ports = Object.fromEntries(Object.entries(free).map(([name, port]) => [name, String(port)]));
    const taken = env[variable] ?? '';
    await using second = start({ ...ports, [variable]: taken, POSTHORN_HOME: other.path });
    expect(await second.ended()).toBe(1);
    expect(second.lines.join('\n')).toContain(
      `Port ${taken}, wanted for ${what}, is in use. Set ${variable}`,
    );
  });

  it('brings back what dies, and says so', async () => {
    process.kill(Number(readFileSync(join(home.path, 'nats', 'nats.pid'), 'utf8')), 'SIGKILL');
    await posthorn.line(/NATS ended by itself/);
    await posthorn.line(/NATS is back/);
  });

  it('ends everything in order on Ctrl-C, and finds its data again', async () => {
    expect(await posthorn.end('SIGINT')).toBe(0);
    const stopped = posthorn.lines.flatMap((line) => /✓ stop (\S+)/.exec(line)?.[1] ?? []);
    expect(stopped).toEqual(['gateway', 'notifier', 'registry', 'auth', 'PostgreSQL', 'NATS']);

    posthorn = start();
    await posthorn.line(/^Ctrl-C stops everything/);
    await using shell = new Program('bash');
    shell.type(`. ${home.path}/dev.env; ${commands()[2]}; exit`);
    expect(await shell.line(/unread_count/)).toContain('"unread_count":1');
  }, 90_000);
});
