import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { type Position, parseTopic, STREAMS } from '@posthorn/contracts';
import {
  Collected,
  eventually,
  openBus,
  prepareBus,
  startNatsCluster,
  type TestBus,
  type TestNatsCluster,
} from '@posthorn/testing';
import type { BusEvent, LiveSubscription } from '../port.js';

const STREAM = STREAMS.global.name;
/** Longer than any test: what is found was asked for at once. */
const checkInterval = 3_600_000;

let cluster: TestNatsCluster;
/** One on each server. */
let buses: TestBus[] = [];
let topics = 0;
/** While true, publishers go on. */
let publishing = false;
let name: string;

const close = () => Promise.all(buses.splice(0).map((bus) => bus[Symbol.asyncDispose]()));

async function open(republish: boolean): Promise<void> {
  await close();
  await prepareBus(cluster, { republish, replicas: 3 });
  const opening = cluster.servers.map((server) => openBus(server, { checkInterval, ackTimeout: 1_000 }));
  buses = await Promise.all(opening);
}

beforeAll(async () => {
  cluster = await startNatsCluster();
}, 180_000);
afterAll(async () => {
  await close();
  await cluster[Symbol.asyncDispose]();
});
afterEach(() => {
  publishing = false;
});
beforeEach(() => {
  name = `t${++topics}`;
});

interface Listening {
  readonly live: LiveSubscription;
  readonly heard: Collected<BusEvent>;
  readonly since: Position;
}

async function listen({ bus }: TestBus, filter = `-.${name}`): Promise<Listening> {
  const heard = new Collected<BusEvent>();
  const live = bus.live({ audience: 'acme', scope: 'global', filter }, heard.add);
  return { live, heard, since: await live.started };
}

/** Stores an event, however often that takes. */
async function store({ bus, nc }: TestBus, n: number, topic = name): Promise<Position> {
  const id = `${topic}-${n}`;
  for (;;) {
    try {
      const { position } = await bus.publish({
        audience: 'acme',
        topic: parseTopic(topic),
        scope: 'global',
        message: { n },
        principal: 'p',
        source: 'test',
        id,
      });
      return position!;
    } catch (error) {
      if (nc.isClosed()) throw error;
      // Nobody answers during an election, or a refusal comes at once: asking on and on would delay it.
      await sleep(20);
    }
  }
}

const leader = async ({ bus }: TestBus) => (await bus.jsm.streams.info(STREAM)).cluster?.leader;

/** Resolves once another server than this one leads the stream: an election takes some 10 s after a crash. */
async function ledByOtherThan(bus: TestBus, old: string): Promise<void> {
  for (;;) {
    const now = await leader(bus).catch(() => undefined);
    if (now !== undefined && now !== old) return;
    if (bus.nc.isClosed()) throw new Error('nobody was elected');
    await sleep(50);
  }
}

/** Has the leader give way until another one is elected. */
async function stepDown(bus: TestBus): Promise<void> {
  let old: string | undefined;
  await eventually(async () => {
    const now = await leader(bus).catch(() => undefined);
    old ??= now;
    if (now !== undefined && now !== old) return true;
    if (now !== undefined) await bus.nc.request(`$JS.API.STREAM.LEADER.STEPDOWN.${STREAM}`).catch(() => {});
    return false;
  });
}

/** The server that leads the stream, by the number in its name. */
const leading = async (bus: TestBus) => Number((await leader(bus))!.split('-')[1]) - 1;

describe('in a cluster whose copies are all lost', () => {
  beforeAll(() => open(false));
  afterAll(async () => {
    const { streams } = buses[0]!.bus.jsm;
    await Promise.all([STREAMS.global, STREAMS.local].map((stream) => streams.delete(stream.name)));
  });

  it('what was just acknowledged is found, whichever server one is connected to', async () => {
    const listening = await Promise.all(buses.map((bus) => listen(bus)));
    for (let n = 0; n < 50; n++) {
      const position = await store(buses[n % 3]!, n);
      await Promise.all(listening.map(({ live }) => live.verify(position)));
      expect(listening.map(({ heard }) => heard.items.length)).toEqual([n + 1, n + 1, n + 1]);
    }
    for (const { live } of listening) live.close();
  });

  it('a silent topic is checked at once when the stream gets another leader', async () => {
    const listening = await Promise.all(buses.flatMap((bus) => [listen(bus), listen(bus, `-.${name}.*`)]));
    await store(buses[0]!, 1);
    await store(buses[0]!, 1, `${name}/unheard`);
    await stepDown(buses[0]!);
    for (const { heard, live } of listening) {
      expect(await heard.until(1)).toHaveLength(1);
      live.close();
    }
  });
});

describe('in a cluster under load', () => {
  beforeAll(() => open(true));

  it('leaders and connections come and go: nothing is missing, nothing doubled, all in order', async () => {
    const names = [`${name}/a`, `${name}/b`, `${name}/c`];
    const listening = await Promise.all(
      buses.flatMap((bus) => [
        ...names.map((topic) => listen(bus, parseTopic(topic).path)),
        listen(bus, `-.${name}.*`),
      ]),
    );
    publishing = true;
    const pump = async (worker: number) => {
      for (let n = worker; publishing; n += 48) await store(buses[worker % 3]!, n, names[(n % 5) % 3]);
    };
    const pumps = Array.from({ length: 48 }, (_, worker) => pump(worker));
    const unsteady = async ({ nc }: TestBus) => {
      for (; publishing; await sleep(200)) await nc.reconnect();
    };
    pumps.push(unsteady(buses[2]!));

    await stepDown(buses[0]!);
    await stepDown(buses[1]!);
    const crashed = await leading(buses[0]!);
    const survivor = buses[(crashed + 1) % 3]!;
    await cluster.servers[crashed]!.kill();
    await ledByOtherThan(survivor, `nats-${crashed + 1}`);
    await store(survivor, 0, name);
    await cluster.servers[crashed]!.start();
    await stepDown(survivor);
    publishing = false;
    await Promise.all(pumps);

    const end = await survivor.bus.horizon('global');
    const stored = new Map<string, number[]>(names.map((topic) => [parseTopic(topic).path, []]));
    const interest = { audience: 'acme', scope: 'global', filter: `-.${name}.*` } as const;
    for await (const { path, position } of await survivor.bus.history(interest, listening[0]!.since, end)) {
      stored.get(path)!.push(position.sequence);
    }
    for (const { live, heard } of listening) {
      await eventually(() =>
        live.verify(end).then(
          () => true,
          () => false,
        ),
      );
      live.close();
      for (const path of new Set(heard.items.map((event) => event.path))) {
        const sequences = heard.items.filter((event) => event.path === path).map((e) => e.position.sequence);
        expect(sequences).toEqual(stored.get(path));
      }
      expect(heard.items.length).toBeGreaterThan(20);
    }
    expect(buses[2]!.seen.repaired).toBeGreaterThan(0);
  }, 180_000);
});
