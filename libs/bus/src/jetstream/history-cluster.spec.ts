import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Position, STREAMS } from '@posthorn/contracts';
import {
  draftOf,
  openBus,
  prepareBus,
  startNatsCluster,
  type TestBus,
  type TestNatsCluster,
} from '@posthorn/testing';
import type { BusEvent } from '../port.js';

const STREAM = STREAMS.global.name;
const interestIn = (filter: string) => ({ audience: 'acme', scope: 'global', filter }) as const;
const sequencesOf = (events: readonly BusEvent[]) => events.map(({ position }) => position.sequence);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

let cluster: TestNatsCluster;
beforeAll(async () => {
  cluster = await startNatsCluster();
  await prepareBus(cluster, { replicas: 3 });
}, 180_000);
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

const serverNamed = (name: string) => cluster.servers[Number(name.split('-').at(-1)) - 1]!;

async function leaderOf({ bus }: TestBus): Promise<string> {
  return (await bus.jsm.streams.info(STREAM)).cluster!.leader!;
}

/** Resolves once every server has the stream, as far as its leader. */
async function settled({ bus }: TestBus): Promise<void> {
  for (;;) {
    const info = await bus.jsm.streams.info(STREAM).catch(() => undefined);
    const replicas = info?.cluster?.replicas ?? [];
    if (replicas.length === 2 && replicas.every(({ current, offline }) => current && !offline)) return;
    await pause(50);
  }
}

/** Has the stream led by another server. */
async function stepDown({ nc }: TestBus): Promise<void> {
  const reply = await nc.request(`$JS.API.STREAM.LEADER.STEPDOWN.${STREAM}`, '', { timeout: 5_000 });
  expect(reply.json()).toMatchObject({ success: true });
}

let ids = 0;
/** Publishes until it is acknowledged, under one id: stored once. */
async function publish({ bus }: TestBus, name: string): Promise<number> {
  const draft = draftOf(name, {}, { id: `event-${++ids}` });
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      return (await bus.publish(draft)).position!.sequence;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await pause(50);
    }
  }
}

/** Stores events of a topic, each with one of another topic behind it. */
async function store(process: TestBus, name: string, count: number): Promise<number[]> {
  const stored: number[] = [];
  while (stored.length < count) {
    const some = Array.from({ length: 200 }, () => [publish(process, name), publish(process, 'others/x')]);
    const sequences = await Promise.all(some.map((pair) => Promise.all(pair)));
    stored.push(...sequences.map(([sequence]) => sequence!));
  }
  return stored;
}

/** Somebody who follows a topic: where a resumption breaks off, another goes on from the last event. */
class Follower {
  readonly events: BusEvent[] = [];
  readonly #process: TestBus;
  readonly #start: Position;
  readonly #filter: string;
  unrecovered = 0;
  #end = () => {};
  #ended = false;
  #look = () => {};

  constructor(process: TestBus, filter: string, start: Position) {
    this.#process = process;
    this.#start = start;
    this.#filter = filter;
    void this.#follow();
  }

  /** Resolves once that many came, or one with that sequence. */
  async until({ count = Number.POSITIVE_INFINITY, sequence = Number.POSITIVE_INFINITY }): Promise<void> {
    const satisfied = () =>
      this.events.length >= count || (this.events.at(-1)?.position.sequence ?? 0) >= sequence;
    while (!satisfied()) {
      await new Promise<void>((look) => {
        this.#look = look;
      });
    }
  }

  close(): void {
    this.#ended = true;
    this.#end();
  }

  async #follow(): Promise<void> {
    while (!this.#ended) {
      const since = this.events.at(-1)?.position ?? this.#start;
      const resumption = this.#process.bus.resume(interestIn(this.#filter), since, (event) => {
        this.events.push(event);
        this.#look();
      });
      this.#end = () => resumption.close();
      try {
        if (!(await resumption.started).recovered) this.unrecovered++;
        await resumption.caughtUp;
        return;
      } catch {
        await pause(100);
      }
    }
  }
}

describe('in a cluster, a long history', () => {
  it('is whole and in order when the leader steps down, and when its server dies, while it is read', async () => {
    await using process = await openBus(cluster);
    const start = await process.bus.horizon('global');
    const stored = await store(process, 'steps', 3_000);
    const until = await process.bus.horizon('global');
    const events: BusEvent[] = [];
    let killed = '';
    for await (const event of await process.bus.history(interestIn('-.steps'), start, until)) {
      events.push(event);
      if (events.length === 500) await stepDown(process);
      if (events.length !== 1_500) continue;
      killed = await leaderOf(process);
      await serverNamed(killed).kill();
    }
    expect(sequencesOf(events)).toEqual(stored);
    await serverNamed(killed).start();
    await settled(process);
  }, 180_000);

  it('has what was just acknowledged also where it is read from a server that lags', async () => {
    await using look = await openBus(cluster);
    const leader = await leaderOf(look);
    const lagging = ['nats-1', 'nats-2', 'nats-3'].find((name) => name !== leader)!;
    await using process = await openBus(serverNamed(leader));
    await using reader = await openBus(serverNamed(leader));
    const start = await process.bus.horizon('global');
    const stored = await store(process, 'lags', 400);
    const placed = placeConsumersOn(reader, lagging);
    serverNamed(lagging).freeze();
    stored.push(...(await store(process, 'lags', 1_000)));
    const until = await process.bus.horizon('global');
    const readings = ['-.lags', '-.*'].map(async (filter) => {
      const events: BusEvent[] = [];
      for await (const event of await reader.bus.history(interestIn(filter), start, until))
        events.push(event);
      return sequencesOf(events);
    });
    setTimeout(() => serverNamed(lagging).thaw(), 500);
    for (const sequences of await Promise.all(readings)) expect(sequences).toEqual(stored);
    expect(placed()).toBeGreaterThan(0);
    await settled(process);
  }, 180_000);
});

describe('in a cluster, whoever resumes while publishers run', () => {
  it('gets each acknowledged event once and in order, over leaders that step down or die', async () => {
    await using one = await openBus(cluster);
    await using two = await openBus(cluster);
    const start = await one.bus.horizon('global');
    const stored = await store(one, 'ticks', 1_000);
    const all = Array.from(
      { length: 6 },
      (_, i) => new Follower(i % 2 ? one : two, i < 4 ? '-.ticks' : '-.*', start),
    );
    const reach = (count: number) => Promise.all(all.map((follower) => follower.until({ count })));
    let over = false;
    const publishing = Promise.all(
      Array.from({ length: 8 }, async () => {
        while (!over) stored.push(await publish(two, 'ticks'));
      }),
    );

    try {
      await reach(300);
      await stepDown(one);
      await reach(2_000);
      const leader = await leaderOf(one);
      await serverNamed(leader).kill();
      await reach(stored.length + 500);
      all.push(new Follower(one, '-.ticks', start));
      await reach(300);
      await serverNamed(leader).start();
      await settled(one);
      await stepDown(one);
      await reach(stored.length + 500);
    } finally {
      over = true;
      await publishing;
    }
    const sequence = await publish(one, 'ticks');
    stored.push(sequence);
    const expected = stored.sort((a, b) => a - b);
    for (const follower of all) {
      await follower.until({ sequence });
      follower.close();
      expect(follower.unrecovered).toBe(0);
      expect(sequencesOf(follower.events)).toEqual(expected);
    }
  }, 180_000);
});

/** Lets a process keep only consumers that live on one server; tells how many there were. */
function placeConsumersOn({ bus }: TestBus, server: string): () => number {
  const { consumers: api } = bus.jsm;
  const { add } = api;
  let placed = 0;
  api.add = async (...given) => {
    for (;;) {
      const info = await add.apply(api, given);
      if (info.cluster?.leader === server) {
        placed++;
        return info;
      }
      await api.delete(STREAM, info.name);
    }
  };
  return () => placed;
}
