import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { root } from '../../../tools/checkout.mjs';
import { tempDir } from './temp-dir.js';

/** A script that starts a server in `process.argv[1]`, prints its process id, and then waits. */
const script = `
  const { startNatsServer } = await import(${JSON.stringify(join(root, 'tools/embedded/nats.mjs'))});
  const dir = process.argv[1];
  const server = await startNatsServer({ dir, removeWhenOrphaned: dir });
  console.log(server.pid);
  setInterval(() => {}, 1000);
`;

describe('a server process', () => {
  it.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
    'ends, and its data goes, when whoever started it dies of %s',
    async (signal) => {
      await using parent = await tempDir();
      const dir = join(parent.path, 'server');
      const { starter, pid } = await start(dir);

      starter.kill(signal);

      await until(() => !isRunning(pid));
      await until(() => !existsSync(dir));
    },
  );

  it('leaves no data when it crashes, and then whoever started it dies', async () => {
    await using parent = await tempDir();
    const dir = join(parent.path, 'server');
    const { starter, pid } = await start(dir);

    process.kill(pid, 'SIGKILL');
    await until(() => !isRunning(pid));
    starter.kill('SIGKILL');

    await until(() => !existsSync(dir));
  });
});

async function start(dir: string): Promise<{ starter: ChildProcess; pid: number }> {
  const starter = spawn(process.execPath, ['--input-type=module', '-e', script, dir]);
  return { starter, pid: Number(await once(starter.stdout, 'data')) };
}

function isRunning(pid: number): boolean {
  // A container whose first process reaps nobody keeps the entry of a dead orphan; it has no command line any more.
  return existsSync(`/proc/${pid}/exe`);
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    expect(Date.now()).toBeLessThan(deadline);
    await sleep(20);
  }
}
