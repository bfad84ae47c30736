import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { tempDir } from '@posthorn/testing';
import { followLog, readableLine } from './log.mjs';

describe('an app’s log, for a reader', () => {
  it('shows warnings and errors, with their reason', () => {
    const entry = { level: 50, time: 0, msg: 'publish failed', err: { message: 'no responders' } };
    expect(readableLine(JSON.stringify(entry))).toMatch(
      /^\d\d:\d\d:\d\d error publish failed: no responders$/,
    );
  });

  it('leaves out what is no warning', () => {
    expect(readableLine(JSON.stringify({ level: 30, time: 0, msg: 'listening' }))).toBeUndefined();
    expect(readableLine('')).toBeUndefined();
  });

  it('shows the last words of a crash, which are no entry', () => {
    expect(readableLine('FATAL ERROR: heap out of memory')).toBe('FATAL ERROR: heap out of memory');
  });

  it('follows a file from its present end, also where a line comes in parts', async () => {
    await using dir = await tempDir();
    const file = join(dir.path, 'app.log');
    writeFileSync(file, '{"level":40,"time":0,"msg":"long ago"}\n');
    let unfollow = (): void => {};
    const first = new Promise((resolve) => {
      unfollow = followLog(file, resolve);
    });
    appendFileSync(file, '{"level":40,"time":0,"msg":"fi');
    appendFileSync(file, 'rst"}\n');
    expect(await first).toMatch(/warn {2}first$/);
    unfollow();
  });
});
