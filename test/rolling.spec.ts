/** `npm run cluster -- --check`, once around: what clients see while a stream's leader dies, and while all is restarted. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Figures } from '../tools/cluster/check.mjs';

/** Events per second: enough to have some under way at any moment, and little enough for a machine that is busy. */
const RATE = 40;

let figures: Figures;

beforeAll(async () => {
  const args = ['tools/cluster.mjs', '--check', '--json', '--rate', String(RATE)];
  const run = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, errors] = ['', ''];
  run.stdout.on('data', (chunk) => (output += chunk));
  run.stderr.on('data', (chunk) => (errors += chunk));
  const [code] = await once(run, 'close');
  if (!output.startsWith('{')) throw new Error(`It ended with ${code}:\n${output}${errors}`);
  figures = JSON.parse(output);
}, 300_000);

describe('kill -9 of the leader of a stream of three, and a rolling restart of all apps, under load', () => {
  it('show no client anything but a pause', () => {
    // Errors of publishers, calls that failed, sockets that were closed while the leader was away, exits that were not 0.
    expect(figures.findings).toEqual([]);
    expect(figures.found).toBe(0);
    expect(figures.leader.times).toBe(1);
    expect(figures.rolling.times).toBe(1);
    expect(figures.requests.sent).toBeGreaterThan(RATE);
  });

  it('lose no event that was acknowledged, double none, and keep their order', () => {
    const { acknowledged, lost, doubled, misplaced } = figures.events;
    expect({ lost, doubled, misplaced }).toEqual({ lost: 0, doubled: 0, misplaced: 0 });
    expect(acknowledged).toBeGreaterThan(4 * RATE);
  });

  it('bring every event once to sockets, streams and polls, and at least once to durable consumers', () => {
    const { acknowledged } = figures.events;
    expect(figures.heard).toMatchObject({ lost: 0, doubled: 0 });
    // A socket, a stream over HTTP, a pattern and an event stream hear all of them, a poll one lane.
    expect(figures.heard.events).toBeGreaterThan(4 * acknowledged);
    expect(figures.consumed).toMatchObject({ events: acknowledged, lost: 0 });
  });

  it('leave one notification in the inbox for each event that makes one, and the right counts', () => {
    const { expected, rows } = figures.inboxes;
    expect(figures.inboxes).toMatchObject({ lost: 0, doubled: 0, wrongCounts: 0 });
    expect(rows).toBe(expected);
    expect(expected).toBeGreaterThan(RATE);
  });

  it('ask publishers to wait for the election, and for as long as that', () => {
    const { slowest, longest } = figures.leader;
    expect(slowest).toBeGreaterThan(0);
    expect(longest.publish.ms).toBeLessThan(slowest + 30_000);
  });
});
