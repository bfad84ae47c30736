/** `npm run chaos`, short: what the client SDK promises holds while everything around it breaks. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { planOf } from './chaos/plan.mjs';
import { root } from './checkout.mjs';

describe('the script of faults', () => {
  it('is the same for the same seed, and another for another', () => {
    expect(planOf(7, 60_000)).toEqual(planOf(7, 60_000));
    expect(planOf(8, 60_000)).not.toEqual(planOf(7, 60_000));
  });

  it('goes on as a shorter one of its seed began, and ends in time', () => {
    const plan = planOf(7, 60_000);
    const shorter = planOf(7, 20_000);
    expect(plan.slice(0, shorter.length)).toEqual(shorter);
    expect(shorter.length).toBeGreaterThan(8);
    expect(plan.every(({ at }) => at < 60_000)).toBe(true);
  });

  it('has every kind of fault in each deck that is dealt', () => {
    const plan = planOf(7, 600_000);
    const kinds = new Set(plan.map(({ fault }) => fault));
    for (let start = 0; start + 24 <= plan.length; start += 24) {
      expect(new Set(plan.slice(start, start + 24).map(({ fault }) => fault))).toEqual(kinds);
    }
    expect(kinds.size).toBe(11);
  });
});

describe('clients of the SDK', () => {
  it('keep what they promise through ten seconds of faults', async () => {
    const args = [join(root, 'tools', 'chaos.mjs'), '--seconds', '10', '--clients', '6', '--seed', '3'];
    const run = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [run.stdout, run.stderr]) stream.on('data', (chunk) => (output += chunk));
    const [code] = await once(run, 'close');
    expect(`${output}\nexit ${code}`).toMatch(/findings +0\n\nexit 0$/);
  }, 180_000);
});
