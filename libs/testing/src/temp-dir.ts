import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TempDir extends AsyncDisposable {
  path: string;
}

/** A directory that goes when it is disposed of. The database's user can walk into it. */
export async function tempDir(): Promise<TempDir> {
  const path = await mkdtemp(join(tmpdir(), 'posthorn-test-'));
  await chmod(path, 0o755);
  return {
    path,
    // A server that was killed a moment ago may still have a file on its way.
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }),
  };
}

/** Starts something that keeps its data in a directory; disposing of it kills it and removes the directory. */
export async function startInTempDir<T extends { kill(): Promise<void> }>(
  start: (path: string) => Promise<T>,
): Promise<T & AsyncDisposable> {
  const dir = await tempDir();
  const remove = (): PromiseLike<void> => dir[Symbol.asyncDispose]();
  try {
    const started = await start(dir.path);
    return Object.assign(started, {
      [Symbol.asyncDispose]: async () => {
        await started.kill();
        await remove();
      },
    });
  } catch (error) {
    await remove();
    throw error;
  }
}
