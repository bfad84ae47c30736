import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import { BUCKETS, makeEpoch, parseTopic, STREAMS, type StreamRecord } from '@posthorn/contracts';
import {
  Collected,
  eventually,
  forgeCopy,
  openBus,
  prepareBus,
  startNats,
  startTcpProxy,
  type TestBus,
  type TestNats,
} from '@posthorn/testing';
import type { BusEvent } from '../port.js';
import { CHECK_INTERVAL } from './watch.js';

const OFTEN = 150;

let nats: TestNats;
/** Asks by itself only after an hour, so that a test knows who asked. */
let process: TestBus;
let checking: TestBus;
let byDefault: { listening: Listening; stored: Promise<Stored>; since: number; bus: TestBus };
let topics = 0;
let name: string;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, { republish: false });
  process = await openBus(nats, { checkInterval: 3_600_000 });
  checking = await openBus(nats, { checkInterval: OFTEN });
  name = 'default';
  const bus = await openBus(nats);
  const listening = await listen(bus);
  byDefault = { bus, listening, since: performance.now(), stored: store(1) };
});
afterAll(async () => {
  for (const one of [process, checking, byDefault.bus]) await one[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});
beforeEach(() => {
  name = `t${++topics}`;
  for (const { seen } of [process, checking]) Object.assign(seen, { dropped: [], gaps: 0, repaired: 0 });
});

interface Stored {
  readonly topic: string;
  readonly n: number;
  readonly sequence: number;
}

/** Stores an event; its copy is sent only when the test says so. */
async function store(n: number, topic = name): Promise<Stored> {
  const { position } = await process.bus.publish({
    audience: 'acme',
    topic: parseTopic(topic),
    scope: 'global',
    message: { n },
    principal: 'p',
    source: 'test',
  });
  return { topic, n, sequence: position!.sequence };
}

function copy({ topic, n, sequence }: Stored, previous: number): void {
  forgeCopy(process.nc, { path: parseTopic(topic).path, sequence, previous, message: { n } });
}

type Listening = Awaited<ReturnType<typeof listen>>;

async function listen(listener: TestBus, filter = `-.${name}`) {
  const { bus, nc } = listener;
  const heard = new Collected<BusEvent>();
  const live = bus.live({ audience: 'acme', scope: 'global', filter }, heard.add);
  await live.started;
  return {
    live,
    heard,
    /** What was heard so far: the numbers. */
    numbers: () => heard.items.map(({ message }) => message.n),
    until: async (count: number) => (await heard.until(count)).map(({ message }) => message.n),
    /** Verifies up to the end of the stream. */
    verify: async () => live.verify(await bus.horizon('global')),
    /** Every copy that was sent before this call has come. */
    settled: async () => {
      await process.nc.flush();
      await nc.flush();
    },
    [Symbol.dispose]: () => live.close(),
  };
}

/** Counts the questions for stored messages that a process asks from now on. */
function countQuestions({ bus }: TestBus) {
  const { streams } = bus.jsm;
  const ask = streams.getMessage;
  const counted = {
    asked: 0,
    atOnce: 0,
    most: 0,
    [Symbol.dispose]: () => {
      streams.getMessage = ask;
    },
  };
  streams.getMessage = async (...given) => {
    counted.asked++;
    counted.most = Math.max(counted.most, ++counted.atOnce);
    try {
      return await ask.apply(streams, given);
    } finally {
      counted.atOnce--;
    }
  };
  return counted;
}

describe('a lost last copy', () => {
  it('of a topic is found by the next check', async () => {
    using one = await listen(checking);
    const stored = [await store(1), await store(2)] as const;
    copy(stored[0], 0);
    expect(await one.until(2)).toEqual([1, 2]);
    expect(checking.seen).toMatchObject({ gaps: 0, dropped: [] });
  });

  it('is found also where none was ever heard', async () => {
    using one = await listen(checking);
    await store(1);
    expect(await one.until(1)).toEqual([1]);
    expect(checking.seen.repaired).toBe(1);
  });

  it('of a topic of a pattern is found, heard of before or not', async () => {
    using one = await listen(checking, `-.${name}.*`);
    const known = [await store(1, `${name}/known`), await store(2, `${name}/known`)] as const;
    copy(known[0], 0);
    await store(3, `${name}/unknown`);
    expect((await one.until(3)).toSorted()).toEqual([1, 2, 3]);
  });

  it('comes after all, and is dropped', async () => {
    using one = await listen(checking);
    const stored = await store(1);
    await one.until(1);
    copy(stored, 0);
    await one.settled();
    expect(one.numbers()).toEqual([1]);
    expect(checking.seen.dropped).toEqual(['late']);
  });

  it('holds nothing up where it was deleted', async () => {
    using one = await listen(process);
    const [first, second] = [await store(1), await store(2)];
    copy(first, 0);
    await process.bus.jsm.streams.deleteMessage(STREAMS.global.name, second.sequence);
    await one.verify();
    expect(one.numbers()).toEqual([1]);
    const third = await store(3);
    copy(third, 0);
    expect(await one.until(2)).toEqual([1, 3]);
  });

  it('is found when the connection comes back, not at the next check', async () => {
    await using link = await startTcpProxy(nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` }, { checkInterval: 3_600_000 });
    using one = await listen(far);
    using pattern = await listen(far, `-.${name}.>`);
    link.cut();
    await store(1);
    await store(2, `${name}/silent/topic`);
    link.restore();
    expect([await one.until(1), await pattern.until(1)]).toEqual([[1], [2]]);
  });

  it('is found after a restart of the server', async () => {
    await using server = await startNats();
    await prepareBus(server, { republish: false });
    await using there = await openBus(server, { checkInterval: 3_600_000 });
    using one = await listen(there);
    await there.bus.publish({
      audience: 'acme',
      topic: parseTopic(name),
      scope: 'global',
      message: { n: 1 },
      principal: 'p',
      source: 'test',
    });
    await server.kill();
    await server.start();
    expect(await one.until(1)).toEqual([1]);
  });
});

describe('verifying', () => {
  it('resolves when everything up to the place was handed over, in order', async () => {
    using one = await listen(process);
    const stored = [await store(1), await store(2), await store(3), await store(4)] as const;
    copy(stored[0], 0);
    copy(stored[2], stored[1].sequence);
    await one.verify();
    expect(one.numbers()).toEqual([1, 2, 3, 4]);
  });

  it.each([1, 32, 200, 2_500])('finds %i events of a pattern of which no copy came', async (count) => {
    using one = await listen(process, `-.${name}.>`);
    const all = await Promise.all(Array.from({ length: count }, (_, n) => store(n, `${name}/${n % 7}/x`)));
    await one.verify();
    expect(one.numbers().toSorted((a, b) => Number(a) - Number(b))).toEqual(all.map(({ n }) => n));
    expect(process.seen.repaired).toBe(count);
    for (let topic = 0; topic < 7; topic++) {
      const heard = one.numbers().filter((n) => Number(n) % 7 === topic);
      expect(heard).toEqual(all.map(({ n }) => n).filter((n) => n % 7 === topic));
    }
  });

  it('finds the few of many events of a pattern whose copies were lost', async () => {
    using one = await listen(process, `-.${name}.*`);
    const lost = (n: number) => n % 97 === 0 || n === 999;
    const last = new Map<string, number>();
    for (let n = 0; n < 1_000; n++) {
      const stored = await store(n, `${name}/${n % 10}`);
      if (!lost(n)) copy(stored, last.get(stored.topic) ?? 0);
      last.set(stored.topic, stored.sequence);
    }
    await one.verify();
    expect(one.numbers().toSorted((a, b) => Number(a) - Number(b))).toEqual(
      Array.from({ length: 1_000 }, (_, n) => n),
    );
    expect(process.seen.repaired).toBe(12);
    expect(process.seen.dropped).toEqual([]);
  });

  it('asks one question at a time for one subscription, however many want to know', async () => {
    using one = await listen(process);
    await store(1);
    const place = await process.bus.horizon('global');
    using questions = countQuestions(process);
    await Promise.all(Array.from({ length: 1_000 }, () => one.live.verify(place)));
    expect(one.numbers()).toEqual([1]);
    // Whether something is missing, and what.
    expect(questions).toMatchObject({ asked: 2, most: 1 });
  });

  it('waits for the next round where it wants more than the one under way', async () => {
    using one = await listen(process);
    await store(1);
    const first = one.verify();
    await store(2);
    const second = one.verify();
    await first;
    await second;
    expect(one.numbers()).toEqual([1, 2]);
  });

  it('asks nothing where the place is known to be complete', async () => {
    using one = await listen(process);
    using pattern = await listen(process, `-.${name}.>`);
    const stored = await store(1);
    const other = await store(2, 'other');
    copy(stored, 0);
    await one.until(1);
    const { epoch } = await one.live.started;
    using questions = countQuestions(process);
    await one.live.verify({ epoch, sequence: stored.sequence });
    expect(questions.asked).toBe(0);
    for (let i = 0; i < 3; i++) {
      await one.live.verify({ epoch, sequence: other.sequence });
      await pattern.live.verify({ epoch, sequence: other.sequence });
    }
    expect(questions.asked).toBe(2);
  });

  it('takes nothing for complete that lies beyond the end of the stream', async () => {
    using one = await listen(process);
    const { epoch } = await one.live.started;
    await one.live.verify({ epoch, sequence: Number.MAX_SAFE_INTEGER });
    await store(1);
    await one.verify();
    expect(one.numbers()).toEqual([1]);
  });

  it('waits until the subscription has begun', async () => {
    const heard = new Collected<BusEvent>();
    const place = await process.bus.horizon('global');
    const live = process.bus.live({ audience: 'acme', scope: 'global', filter: `-.${name}` }, heard.add);
    await live.verify(place);
    live.close();
  });

  it('is unavailable where NATS is away, and possible again when it is back', async () => {
    await using link = await startTcpProxy(nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` }, { checkInterval: 3_600_000 });
    using one = await listen(far);
    using pattern = await listen(far, `-.${name}.>`);
    await store(1);
    const place = await process.bus.horizon('global');
    link.stall();
    const verifying = [one.live.verify(place), pattern.live.verify(place)];
    const outcomes = Promise.allSettled(verifying);
    link.cut();
    expect(await outcomes).toEqual(
      Array(2).fill({ status: 'rejected', reason: expect.objectContaining({ code: 'unavailable' }) }),
    );
    link.restore();
    await eventually(() =>
      one.live.verify(place).then(
        () => true,
        () => false,
      ),
    );
    expect(one.numbers()).toEqual([1]);
  });

  it('is unavailable soon where the leader does not answer, though the connection stands', async () => {
    await using server = await startNats();
    await prepareBus(server, { republish: false });
    await using there = await openBus(server, { checkInterval: 3_600_000 });
    using one = await listen(there);
    using pattern = await listen(there, `-.${name}.>`);
    await there.bus.js.publish('ph.acme.global.-.other', '{}');
    const place = await there.bus.horizon('global');
    server.freeze();
    const asked = performance.now();
    const outcomes = await Promise.allSettled([one.live.verify(place), pattern.live.verify(place)]);
    server.thaw();
    expect(outcomes).toEqual(
      Array(2).fill({ status: 'rejected', reason: expect.objectContaining({ code: 'unavailable' }) }),
    );
    expect(performance.now() - asked).toBeLessThan(5_000);
    await Promise.all([one.live.verify(place), pattern.live.verify(place)]);
  });

  it('is unavailable for a place of another epoch, and after the end', async () => {
    const one = await listen(process);
    const { sequence, epoch } = await one.live.started;
    await expect(one.live.verify({ epoch: '1z1', sequence })).rejects.toMatchObject({ code: 'unavailable' });
    one.live.close();
    await expect(one.live.verify({ epoch, sequence })).rejects.toMatchObject({ code: 'unavailable' });
  });
});

describe('after everything was verified, a pattern', () => {
  /** Two topics of which something was heard, verified. */
  async function verified() {
    const one = await listen(process, `-.${name}.*`);
    const a = await store(1, `${name}/a`);
    const b = await store(2, `${name}/b`);
    copy(a, 0);
    copy(b, 0);
    await one.verify();
    return { one, a, b };
  }

  it('still drops what comes late or twice', async () => {
    const { one, a, b } = await verified();
    copy(b, 0);
    copy(a, 0);
    await one.settled();
    expect(one.numbers()).toEqual([1, 2]);
    expect(process.seen.dropped).toEqual(['late', 'late']);
    one.live.close();
  });

  it('passes on at once what follows on a topic, and what is first on another', async () => {
    const { one, a } = await verified();
    const more = await store(3, `${name}/a`);
    copy(more, a.sequence);
    await one.until(3);
    using questions = countQuestions(process);
    const other = await store(4, `${name}/c`);
    copy(other, 0);
    expect(await one.until(4)).toEqual([1, 2, 3, 4]);
    // A copy that nothing was before may hide a loss behind a delete.
    expect(questions.asked).toBe(1);
    expect(process.seen).toMatchObject({ gaps: 0, repaired: 0, dropped: [] });
    one.live.close();
  });

  it('remembers the place, not its topics: any predecessor up to it will do', async () => {
    const { one, b } = await verified();
    using questions = countQuestions(process);
    copy(await store(3, `${name}/a`), b.sequence);
    await one.settled();
    expect(one.numbers()).toEqual([1, 2, 3]);
    expect([questions.asked, process.seen.gaps]).toEqual([0, 0]);
    one.live.close();
  });

  it('still notices a gap', async () => {
    const { one } = await verified();
    const lost = await store(3, `${name}/a`);
    const next = await store(4, `${name}/a`);
    copy(next, lost.sequence);
    expect(await one.until(4)).toEqual([1, 2, 3, 4]);
    expect(process.seen).toMatchObject({ gaps: 1, repaired: 1 });
    one.live.close();
  });

  it('notices one also behind a delete, where the copy says that nothing was before it', async () => {
    const { one } = await verified();
    await store(3, `${name}/a`);
    const gone = await store(4, `${name}/a`);
    await process.bus.jsm.streams.deleteMessage(STREAMS.global.name, gone.sequence);
    copy(await store(5, `${name}/a`), 0);
    expect(await one.until(4)).toEqual([1, 2, 3, 5]);
    one.live.close();
  });
});

describe('a forged copy from beyond the end of the stream', () => {
  it.each([
    ['a topic', (topic: string) => `-.${topic}`],
    ['a pattern', (topic: string) => `-.${topic}.>`],
  ])('does not silence %s for ever', async (kind, filter) => {
    const topic = kind === 'a topic' ? name : `${name}/x`;
    using one = await listen(checking, filter(name));
    const first = await store(1, topic);
    copy(first, 0);
    await one.until(1);
    copy({ topic, n: 666, sequence: first.sequence + 1_000_000 }, first.sequence);
    await one.until(2);
    const second = await store(2, topic);
    copy(second, first.sequence);
    const third = await store(3, topic);
    expect(await one.until(4)).toEqual([1, 666, 2, 3]);
    const fourth = await store(4, topic);
    copy(fourth, third.sequence);
    expect(await one.until(5)).toEqual([1, 666, 2, 3, 4]);
  });

  it('and others on it cost at most what came since the last check', async () => {
    using one = await listen(checking);
    const { sequence } = await store(1);
    copy({ topic: name, n: 666, sequence: sequence + 1_000_000 }, 0);
    copy({ topic: name, n: 667, sequence: sequence + 2_000_000 }, sequence + 1_000_000);
    await one.until(3);
    await store(2);
    await one.heard.until((events) => events.some(({ message }) => message.n === 2));
  });
});

describe('a stream that was restored', () => {
  it('is heard from where it was put back to, and nothing twice', async () => {
    await using server = await startNats();
    await prepareBus(server, { republish: false });
    await using there = await openBus(server, { checkInterval: 3_600_000 });
    const [one, pattern] = [await listen(there), await listen(there, `-.${name}.*`)];
    const draft = { audience: 'acme', scope: 'global', principal: 'p', source: 'test' } as const;
    const store = async (topic: string, n: number) =>
      (await there.bus.publish({ ...draft, topic: parseTopic(topic), message: { n } })).position!.sequence;
    const paths = [`-.${name}`, `-.${name}.x`] as const;
    const kept = [await store(name, 1), await store(`${name}/x`, 1)] as const;
    for (const [i, path] of paths.entries()) {
      forgeCopy(there.nc, { path, sequence: kept[i]!, previous: 0, message: { n: 1 } });
      // Stored too, and lost with the servers' disks.
      forgeCopy(there.nc, { path, sequence: 1_000 + i, previous: kept[i]!, message: { n: 2 } });
    }
    await Promise.all([one.until(2), pattern.until(2)]);

    const bucket = await new Kvm(there.nc).open(BUCKETS.streams);
    const record = (await bucket.get(STREAMS.global.name))!.json<StreamRecord>();
    const epoch = makeEpoch(Date.parse(record.created), 2);
    await bucket.put(STREAMS.global.name, JSON.stringify({ ...record, epoch, generation: 2 }));
    await eventually(async () => (await there.bus.horizon('global')).epoch === epoch);
    there.nc.publish(`$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.${STREAMS.global.name}`);
    await store(name, 3);
    await store(`${name}/x`, 3);
    await Promise.all([one.heard.until(3), pattern.heard.until(3)]);
    for (const { heard } of [one, pattern]) {
      expect(heard.items.map(({ message }) => message.n)).toEqual([1, 2, 3]);
      expect(heard.items[2]!.position.epoch).toBe(epoch);
    }
    one.live.close();
    pattern.live.close();
  });
});

describe('without being told how often', () => {
  it('a silent topic is checked within 15 s', async () => {
    expect(CHECK_INTERVAL).toBeLessThan(15_000);
    const { stored, since, listening } = byDefault;
    const { sequence } = await stored;
    const found = await listening.heard.until(1).catch(() => listening.heard.until(1));
    expect(found.map(({ position }) => position.sequence)).toEqual([sequence]);
    // The servers may be slow to answer, where the machine is busy with other specs.
    expect(performance.now() - since).toBeLessThan(30_000);
  });
});
