import { spawnSync } from 'node:child_process';
import { describe, expect, it } from '@jest/globals';
import { CONFIGURATION, requiredNames } from './support/app-environment.js';

describe.each(Object.entries(CONFIGURATION))('the image, asked for %s', (argument, rows) => {
  it('does not start in production without what it demands, and names each', () => {
    const { status, stderr } = spawnSync(process.execPath, ['docker/run.mjs', argument], {
      env: { NODE_ENV: 'production', PORT: '0' },
      encoding: 'utf8',
    });
    expect(status).toBe(1);
    const tokens = rows.some(({ name }) => name === 'JWT_SECRET') ? ['JWT_SECRET'] : [];
    for (const name of [...requiredNames(rows), ...tokens]) expect(stderr).toContain(name);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});
