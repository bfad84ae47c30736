import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { JsMsg } from '@nats-io/jetstream';
import { type Position, STREAMS } from '@posthorn/contracts';
import {
  draftOf,
  eventually,
  openBus,
  type ServedBus,
  startBus,
  startTcpProxy,
  type TestBus,
} from '@posthorn/testing';
import type { BusEvent, History } from '../port.js';

let process: ServedBus;
let topics = 0;
let name: string;

beforeAll(async () => {
  process = await startBus({
    topics: [{ topic: 'numbers', audience: 'acme', schema: { properties: { n: { type: 'number' } } } }],
  });
});
afterAll(async () => process[Symbol.asyncDispose]());
beforeEach(() => {
  name = `t${++topics}`;
  process.seen.dropped = [];
});
afterEach(async () => {
  await eventually(async () => (await consumers()).length === 0);
});

const consumers = () => process.bus.jsm.consumers.list(STREAMS.global.name).next();
const interestIn = (topic: string) => ({ audience: 'acme', scope: 'global', filter: `-.${topic}` }) as const;

/** Stores events `{n}` of a topic, numbered from 0. */
async function store(count: number, topic = name, bus: TestBus = process): Promise<number[]> {
  const receipts = await Promise.all(
    Array.from({ length: count }, (_, n) => bus.bus.publish(draftOf(topic, { n }))),
  );
  return receipts.map(({ position }) => position!.sequence);
}

async function read(
  sequence: number,
  { bus }: TestBus = process,
  filter = name,
  until?: Position,
): Promise<BusEvent[]> {
  const horizon = until ?? (await bus.horizon('global'));
  return collect(await bus.history(interestIn(filter), { ...horizon, sequence }, horizon));
}

async function collect(history: History): Promise<BusEvent[]> {
  const events: BusEvent[] = [];
  for await (const event of history) events.push(event);
  return events;
}

const sequencesOf = (events: readonly BusEvent[]) => events.map(({ position }) => position.sequence);

describe('history', () => {
  it.each([0, 1, 2, 31, 32, 33, 64, 95, 96, 97, 500])(
    'has each of %i events once and in order, whatever lies between them',
    async (count) => {
      const { sequence } = await process.bus.horizon('global');
      const stored: number[] = [];
      for (let n = 0; n < count; n += 10) {
        stored.push(...(await store(Math.min(10, count - n))));
        if (n % 30 === 0) await store(3, 'other');
      }
      expect(sequencesOf(await read(sequence))).toEqual(stored);
    },
  );

  it('begins after the position and ends at the horizon, to the event', async () => {
    const stored = await store(200);
    const { epoch } = await process.bus.horizon('global');
    for (const [from, to] of [
      [0, 199],
      [50, 60],
      [10, 150],
      [100, 100],
    ] as const) {
      const until = { epoch, sequence: stored[to]! };
      expect(sequencesOf(await read(stored[from]!, process, name, until))).toEqual(
        stored.slice(from + 1, to + 1),
      );
    }
  });

  it('of a pattern keeps the order of the stream over its topics', async () => {
    const { sequence } = await process.bus.horizon('global');
    const stored = (await Promise.all(['a', 'b', 'c'].map((topic) => store(80, `${name}/${topic}`)))).flat();
    expect(sequencesOf(await read(sequence, process, `${name}.*`))).toEqual(stored.sort((a, b) => a - b));
  });

  it('knows what was deleted from what was skipped', async () => {
    const { sequence } = await process.bus.horizon('global');
    const stored = await store(150);
    for (const n of [0, 40, 41, 149]) {
      await process.bus.jsm.streams.deleteMessage(STREAMS.global.name, stored[n]!);
    }
    expect(sequencesOf(await read(sequence))).toEqual(stored.filter((_, n) => ![0, 40, 41, 149].includes(n)));
  });

  it('leaves out what is no event, counts it, and goes on', async () => {
    const { sequence } = await process.bus.horizon('global');
    const subject = 'ph.acme.global.-.numbers';
    for (let n = 0; n < 100; n++) {
      await process.bus.js.publish(subject, n % 10 === 0 ? '{"n":"no"}' : JSON.stringify({ n }));
    }
    const events = await read(sequence, process, 'numbers');
    expect(events.map(({ message }) => message.n)).toEqual(
      Array.from({ length: 100 }, (_, n) => n).filter((n) => n % 10 !== 0),
    );
    expect(process.seen.dropped).toEqual(Array(10).fill('schema'));
  });

  it('makes no consumer for a few events', async () => {
    const [first] = await store(20);
    const created = countConsumers(process);
    await read(first!);
    expect(created()).toBe(0);
  });

  it('goes on where it stood after a lost connection', async () => {
    await using link = await startTcpProxy(process.nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    const { sequence, epoch } = await process.bus.horizon('global');
    const stored = await store(2_000);
    const until = { epoch, sequence: stored.at(-1)! };
    const events: BusEvent[] = [];
    for await (const event of await far.bus.history(interestIn(name), { epoch, sequence }, until)) {
      events.push(event);
      if (![10, 500, 1_500].includes(events.length)) continue;
      link.cut();
      setTimeout(() => link.restore(), 100);
    }
    expect(sequencesOf(events)).toEqual(stored);
    await removeIdleConsumers();
  });

  it('is unavailable once the store has not answered for some time, and complete up to there', async () => {
    await using link = await startTcpProxy(process.nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` }, { patience: 300 });
    const { sequence, epoch } = await process.bus.horizon('global');
    const stored = await store(2_000);
    const until = { epoch, sequence: stored.at(-1)! };
    const events: BusEvent[] = [];
    const history = await far.bus.history(interestIn(name), { epoch, sequence }, until);
    const reading = (async () => {
      for await (const event of history) {
        events.push(event);
        if (events.length === 100) link.cut();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'unavailable' });
    expect(sequencesOf(events)).toEqual(stored.slice(0, events.length));
    await expect(far.bus.history(interestIn(name), { epoch, sequence }, until)).rejects.toMatchObject({
      code: 'unavailable',
    });
    link.restore();
    await removeIdleConsumers();
  });

  it('that is dropped while it is read says so', async () => {
    await using reader = await startBus();
    const stored = await store(1_000, 'ticks', reader);
    const until = await reader.bus.horizon('global');
    const history = await reader.bus.history(interestIn('ticks'), { ...until, sequence: 0 }, until);
    const events: BusEvent[] = [];
    const reading = (async () => {
      for await (const event of history) {
        events.push(event);
        if (events.length === 40) await reader.bus.jsm.streams.purge(STREAMS.global.name, { seq: 900 });
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'unavailable' });
    expect(sequencesOf(events)).toEqual(stored.slice(0, events.length));
  });

  it('waits for a slow reader', async () => {
    const { sequence } = await process.bus.horizon('global');
    const stored = await store(1_000);
    const horizon = await process.bus.horizon('global');
    const events: BusEvent[] = [];
    for await (const event of await process.bus.history(
      interestIn(name),
      { ...horizon, sequence },
      horizon,
    )) {
      events.push(event);
      if (events.length % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(sequencesOf(events)).toEqual(stored);
  });

  it('ends at once when it is closed', async () => {
    const { sequence } = await process.bus.horizon('global');
    await store(1_000);
    const horizon = await process.bus.horizon('global');
    const history = await process.bus.history(interestIn(name), { ...horizon, sequence }, horizon);
    let count = 0;
    for await (const _ of history) if (++count === 100) history.close();
    expect(count).toBe(100);
  });
});

describe('a consumer that does not tell everything', () => {
  const some = (places: number[]) => places.filter((n) => n % 7 !== 0);
  it.each([
    ['loses some', some, false],
    ['ends early', (places: number[]) => places.slice(0, 5), false],
    ['says nothing', () => [], false],
    ['lives on a follower and skips some', some, true],
  ])('because it %s is noticed', async (_, keep, onFollower) => {
    await using reader = await openBus(process.nats);
    const { sequence, epoch } = await process.bus.horizon('global');
    const stored = await store(400);
    const spoilt = spoilConsumers(reader, keep, onFollower);
    const until = { epoch, sequence: stored.at(-1)! };
    expect(sequencesOf(await read(sequence, reader, name, until))).toEqual(stored);
    expect(spoilt.messages).toBeGreaterThan(0);
  });
});

describe('those who ask for the same history at once', () => {
  it('share one reading, and each gets what is after its own position', async () => {
    const { sequence } = await process.bus.horizon('global');
    const stored = await store(600);
    const horizon = await process.bus.horizon('global');
    const created = countConsumers(process);
    const after = [sequence, ...Array.from({ length: 99 }, (_, i) => stored[i * 6]!)];
    const all = await Promise.all(
      after.map(async (from) =>
        sequencesOf(
          await collect(await process.bus.history(interestIn(name), { ...horizon, sequence: from }, horizon)),
        ),
      ),
    );
    for (const [i, from] of after.entries()) expect(all[i]).toEqual(stored.filter((n) => n > from));
    expect(created()).toBe(1);
  });

  it('also with one who comes while it is read, and wants more', async () => {
    const { epoch } = await process.bus.horizon('global');
    const stored = await store(1_000);
    const excerpt = (after: number, until: number) =>
      process.bus.history(
        interestIn(name),
        { epoch, sequence: stored[after]! },
        { epoch, sequence: stored[until]! },
      );
    const first = await excerpt(0, 70);
    const second = await excerpt(40, 999);
    const seen: BusEvent[] = [];
    let more: Promise<BusEvent[]> | undefined;
    for await (const event of first) {
      seen.push(event);
      more ??= collect(second);
    }
    expect(sequencesOf(seen)).toEqual(stored.slice(1, 71));
    expect(sequencesOf(await more!)).toEqual(stored.slice(41));
  });

  it('do not wait for the slowest of them', async () => {
    const { sequence } = await process.bus.horizon('global');
    const stored = await store(1_500);
    const horizon = await process.bus.horizon('global');
    const open = () => process.bus.history(interestIn(name), { ...horizon, sequence }, horizon);
    const [slow, fast] = await Promise.all([open(), open()]);
    let go = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const slowly = (async () => {
      const events: BusEvent[] = [];
      for await (const event of slow) {
        events.push(event);
        if (events.length === 10) await gate;
      }
      return events;
    })();
    expect(sequencesOf(await collect(fast))).toEqual(stored);
    go();
    expect(sequencesOf(await slowly)).toEqual(stored);
  });

  it('and leave before the end end the reading', async () => {
    const { sequence } = await process.bus.horizon('global');
    await store(3_000);
    const horizon = await process.bus.horizon('global');
    await Promise.all(
      Array.from({ length: 5 }, async () => {
        const history = await process.bus.history(interestIn(name), { ...horizon, sequence }, horizon);
        for await (const _ of history) break;
      }),
    );
  });
});

/** Counts the consumers that a process makes from now on. */
function countConsumers({ bus }: TestBus): () => number {
  const { consumers: api } = bus.jsm;
  const { add } = api;
  let count = 0;
  api.add = (...given) => {
    count++;
    return add.apply(api, given);
  };
  return () => {
    api.add = add;
    return count;
  };
}

/**
 * Lets a process hear only some of what its consumers send: `keep` is given the places in a batch. One on a
 * follower does not let it show: it numbers its messages without a gap.
 */
function spoilConsumers({ bus }: TestBus, keep: (places: number[]) => number[], onFollower: boolean) {
  const { consumers: api } = bus.js;
  const { getConsumerFromInfo } = api;
  const spoilt = { messages: 0 };
  api.getConsumerFromInfo = (info) => {
    if (onFollower) info.cluster = { name: 'cluster', leader: 'follower' };
    const consumer = getConsumerFromInfo.call(api, info);
    const { fetch } = consumer;
    let sent = 0;
    consumer.fetch = async (options) => {
      const messages = await fetch.call(consumer, options);
      const iterate = messages[Symbol.asyncIterator].bind(messages);
      messages[Symbol.asyncIterator] = async function* () {
        const all: JsMsg[] = [];
        for await (const message of { [Symbol.asyncIterator]: iterate }) all.push(message);
        const kept = keep(all.map((_, i) => i)).map((place) => all[place]!);
        spoilt.messages += all.length - kept.length;
        for (const message of kept) {
          const deliverySequence = onFollower ? ++sent : message.info.deliverySequence;
          const value = { ...message.info, deliverySequence };
          yield Object.create(message, { info: { value } }) as JsMsg;
        }
      };
      return messages;
    };
    return consumer;
  };
  return spoilt;
}

/** What a reader without a connection could not remove goes after some idle seconds; a test does not wait for that. */
async function removeIdleConsumers(): Promise<void> {
  for (const { name: consumer, config } of await consumers()) {
    expect(config.inactive_threshold).toBeLessThanOrEqual(10e9);
    await process.bus.jsm.consumers.delete(STREAMS.global.name, consumer);
  }
}
