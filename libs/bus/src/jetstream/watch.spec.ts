import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Position, Scope } from '@posthorn/contracts';
import { eventually, openBus, prepareBus, startNats, type TestBus, type TestNats } from '@posthorn/testing';
import { Epochs } from './epochs.js';
import { Horizon } from './horizon.js';
import { InFlight } from './in-flight.js';
import { Watch, type Watched } from './watch.js';

let nats: TestNats;
let process: TestBus;
let epochs: Epochs;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats);
  process = await openBus(nats);
  epochs = new Epochs();
  await epochs.follow(process.nc);
});
afterAll(async () => {
  epochs.close();
  await process[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});

/** What was checked, when, and how many at a time. */
class Checks {
  readonly at: number[] = [];
  readonly ends: Position[] = [];
  running = 0;
  most = 0;
  answers = true;

  watched(scope: Scope = 'global'): Watched {
    return {
      scope,
      check: async (end) => {
        this.at.push(performance.now());
        this.ends.push(end);
        this.most = Math.max(this.most, ++this.running);
        await new Promise(setImmediate);
        this.running--;
        if (!this.answers) throw new Error('the leader does not answer');
      },
    };
  }
}

function open(interval: number) {
  const inFlight = new InFlight(process.nc);
  const horizons = {
    global: new Horizon(process.bus.jsm, 'PH_GLOBAL', inFlight),
    local: new Horizon(process.bus.jsm, 'PH_LOCAL', inFlight),
  };
  const watch = new Watch({ nc: process.nc, epochs, horizons, log: () => {} }, interval);
  return { watch, horizons, [Symbol.dispose]: () => watch.close() };
}

describe('a watch', () => {
  it('checks each of thousands once in an interval, evenly, few at a time', async () => {
    using opened = open(2_000);
    const checks = new Checks();
    const each = Array.from({ length: 10_000 }, () => new Checks());
    for (const one of each) {
      const counted = one.watched();
      const timed = checks.watched();
      opened.watch.add({
        scope: 'global',
        check: async (end) => {
          await Promise.all([counted.check(end), timed.check(end)]);
        },
      });
    }
    await eventually(() => each.every(({ at }) => at.length > 0));
    const all = checks.at.length;
    expect(all).toBeLessThan(11_000);
    expect(checks.most).toBeLessThanOrEqual(64);
    // The tenths of the time that it took have about a tenth of the checks each.
    const [first, last] = [checks.at[0]!, checks.at.at(-1)!];
    const tenths = Array(10).fill(0);
    for (const at of checks.at) tenths[Math.min(9, Math.floor(((at - first) / (last - first)) * 10))]++;
    expect(Math.max(...tenths)).toBeLessThan(all / 4);
  });

  it('asks each stream for its end, for those who listen to it', async () => {
    using opened = open(100);
    const [global, local] = [new Checks(), new Checks()];
    opened.watch.add(global.watched('global'));
    opened.watch.add(local.watched('local'));
    await eventually(() => global.ends.length > 0 && local.ends.length > 0);
    expect(global.ends[0]).toEqual(await process.bus.horizon('global'));
    expect(local.ends[0]).toEqual(await process.bus.horizon('local'));
  });

  it('checks at once when an answer comes from another leader', async () => {
    using opened = open(3_600_000);
    const checks = new Checks();
    opened.watch.add(checks.watched());
    opened.horizons.global.onLeaderChange();
    await eventually(() => checks.at.length === 1);
  });

  it('checks at once when the server tells of an election, whatever the number of those who listen', async () => {
    using opened = open(3_600_000);
    const checks = new Checks();
    for (let n = 0; n < 500; n++) opened.watch.add(checks.watched());
    process.nc.publish('$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.OTHER');
    process.nc.publish('$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.PH_GLOBAL');
    await eventually(() => checks.at.length >= 500);
    expect(checks.at.length).toBe(500);
    // Once more when the servers have settled: nobody says when that is.
    await eventually(() => checks.at.length === 1_000);
    expect(checks.most).toBeLessThanOrEqual(64);
  });

  it('checks at once when somebody here reads too slowly', async () => {
    using opened = open(3_600_000);
    const checks = new Checks();
    opened.watch.add(checks.watched());
    const slow = process.nc.subscribe('slow', { slow: 2 });
    for (let n = 0; n < 5; n++) process.nc.publish('slow');
    await eventually(() => checks.at.length === 1);
    slow.unsubscribe();
  });

  it('asks again soon where the leader did not answer', async () => {
    using opened = open(3_600_000);
    const checks = new Checks();
    checks.answers = false;
    opened.watch.add(checks.watched());
    opened.horizons.global.onLeaderChange();
    await eventually(() => checks.at.length === 1);
    checks.answers = true;
    await eventually(() => checks.at.length === 2);
  });

  it('leaves alone who has left', async () => {
    using opened = open(50);
    const [gone, there] = [new Checks(), new Checks()];
    const leaving = gone.watched();
    opened.watch.add(leaving);
    opened.watch.add(there.watched());
    opened.watch.remove(leaving);
    await eventually(() => there.at.length > 2);
    expect(gone.at).toEqual([]);
  });
});
