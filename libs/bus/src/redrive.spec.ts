import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { STREAMS } from '@posthorn/contracts';
import {
  Collected,
  draftOf,
  eventually,
  openBus,
  prepareBus,
  type ServedBus,
  startBus,
  type TestBus,
} from '@posthorn/testing';
import { type DeadLetter, readDeadLetter, storeRedrive } from './dead-letters.js';
import { provisionStreams, streamConfigs } from './jetstream/stream-config.js';
import type { BusEvent, Delivery, DurableHandler, DurableOptions } from './port.js';
import { PermanentFailure } from './settlement.js';

let process: ServedBus;
let counter = 0;

beforeAll(async () => {
  process = await startBus({ audiences: ['acme', 'beta'] });
});

afterAll(async () => process[Symbol.asyncDispose]());

interface Heard {
  readonly by: string;
  readonly event: BusEvent;
  readonly delivery: Delivery;
}

/** A topic, consumers of it, and what their handlers heard. Handlers fail for good while `failing` says so. */
function setting(more: Partial<DurableOptions> = {}) {
  const topic = `r${++counter}`;
  const options: DurableOptions = {
    name: `redrive-${counter}`,
    scope: 'local',
    audience: 'acme',
    filters: [`-.${topic}`],
    backoff: [10, 20],
    ...more,
  };
  const heard = new Collected<Heard>();
  const state = { failing: true };
  const handler =
    (by: string): DurableHandler =>
    async (event, delivery) => {
      heard.add({ by, event, delivery });
      if (state.failing) throw new PermanentFailure('refused', 'as told', { waitsFor: 'better times' });
    };
  return {
    topic,
    options,
    heard,
    state,
    handler,
    async consume(by = 'one', on: TestBus = process, own: Partial<DurableOptions> = {}) {
      const subscription = on.bus.consume({ ...options, ...own }, handler(by));
      await subscription.ready;
      return { subscription, [Symbol.asyncDispose]: () => subscription.close() };
    },
    publish: async (n = 1) =>
      process.bus.publish(draftOf(topic, { n }, { scope: options.scope, id: `${topic}-${n}` })),
    /** The consumer's dead letters, once there are that many. */
    dead: (count: number) => messagesOf(`ph-dead.${options.name}`, count),
    redrives: (count: number) => messagesOf(`ph-redrive.${options.scope}.${options.name}.>`, count),
  };
}

/** Messages of `PH_DEAD`, once there are that many. */
async function messagesOf(filter: string, count: number, on: TestBus = process): Promise<DeadLetter[]> {
  const consumer = await on.bus.js.consumers.get(STREAMS.dead.name, { filter_subjects: filter });
  await eventually(async () => (await consumer.info()).num_pending >= count);
  expect((await consumer.info()).num_pending).toBe(count);
  const letters: DeadLetter[] = [];
  if (count === 0) return letters;
  for await (const { headers, data } of await consumer.fetch({ max_messages: count })) {
    letters.push(readDeadLetter(headers, data)!);
  }
  return letters;
}

/** Resolves once no redrive of a consumer is open. */
async function settled({ scope, name }: DurableOptions, on: TestBus = process): Promise<void> {
  await eventually(async () => {
    const info = await on.bus.jsm.consumers
      .info(STREAMS.dead.name, `${scope}-${name}`)
      .catch(() => undefined);
    return info !== undefined && info.num_pending + info.num_ack_pending === 0;
  });
}

describe('a dead letter that is redriven', () => {
  it('comes to the consumer that gave it up as it was, and to nobody else', async () => {
    const one = setting();
    const other = new Collected<BusEvent>();
    await using _one = await one.consume();
    const neighbour = process.bus.consume({ ...one.options, name: `${one.options.name}-2` }, async (event) =>
      other.add(event),
    );
    await neighbour.ready;
    await one.publish();
    const [letter] = await one.dead(1);
    expect(letter).toMatchObject({
      id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      waitsFor: 'better times',
      redrives: 0,
      eventId: `${one.topic}-1`,
      source: { audience: 'acme', scope: 'local', instance: 'main', path: `-.${one.topic}` },
    });
    one.state.failing = false;
    await storeRedrive(process.bus.js, letter!);
    const [first, second] = await one.heard.until(2);
    expect(second!.event).toEqual(first!.event);
    expect(first!.delivery).toMatchObject({ tries: 1, redriven: false });
    expect(second!.delivery).toEqual({ ...first!.delivery, redriven: true });
    await settled(one.options);
    expect(other.items).toHaveLength(1);
    expect(
      (await process.bus.jsm.streams.info('PH_LOCAL', { subjects_filter: '>' })).state.subjects,
    ).toMatchObject({
      [letter!.subject]: 1,
    });
    await neighbour.close();
  });

  it('is handled once, by one of the processes that share the consumer, however often it is redriven', async () => {
    const one = setting();
    await using other = await openBus(process.nats);
    await using _one = await one.consume('one');
    await using _two = await one.consume('two', other);
    await Promise.all(Array.from({ length: 40 }, (_, n) => one.publish(n)));
    await one.heard.until(40);
    const letters = await one.dead(40);
    one.state.failing = false;
    // As if whoever redrives had died before it could note so, and its heir begins again while it still writes.
    await Promise.all([...letters, ...letters].map((letter) => storeRedrive(process.bus.js, letter)));
    await Promise.all(letters.map((letter) => storeRedrive(other.bus.js, letter)));
    await one.heard.until(80);
    await settled(one.options);
    const redriven = one.heard.items.filter(({ delivery }) => delivery.redriven);
    expect(new Set(redriven.map(({ event }) => event.id)).size).toBe(40);
    expect(redriven).toHaveLength(40);
    expect(new Set(redriven.map(({ by }) => by))).toEqual(new Set(['one', 'two']));
  });

  it('and fails again is the same letter, as often as that happens, however soon', async () => {
    const one = setting();
    await using _ = await one.consume();
    const { position } = await one.publish();
    const [original] = await one.dead(1);
    let letter = original!;
    for (const redrives of [1, 2, 3]) {
      await storeRedrive(process.bus.js, letter);
      letter = (await one.dead(redrives + 1)).at(-1)!;
      expect(letter).toEqual({ ...original!, redrives, time: letter.time });
    }
    expect(letter.epoch).toBe(position!.epoch);
    expect((await one.heard.until(4)).map(({ event }) => event)).toEqual(
      Array(4).fill(one.heard.items[0]!.event),
    );
  });

  it('is tried again by the same rules', async () => {
    const one = setting();
    const tries = new Collected<[number, boolean]>();
    const subscription = process.bus.consume(one.options, async (_, delivery) => {
      tries.add([delivery.tries, delivery.redriven]);
      throw new Error('never');
    });
    await subscription.ready;
    await one.publish();
    const [letter] = await one.dead(1);
    await storeRedrive(process.bus.js, letter!);
    expect(await tries.until(6)).toEqual([
      [1, false],
      [2, false],
      [3, false],
      [1, true],
      [2, true],
      [3, true],
    ]);
    expect(await one.dead(2)).toMatchObject([{ redrives: 0 }, { redrives: 1, tries: 3 }]);
    await subscription.close();
  });

  it('waits for a consumer that does not run, in this process or any', async () => {
    const one = setting();
    const { subscription } = await one.consume();
    await one.publish();
    const [letter] = await one.dead(1);
    await subscription.close();
    one.state.failing = false;
    await storeRedrive(process.bus.js, letter!);
    expect(one.heard.items).toHaveLength(1);
    await using _ = await one.consume('heir');
    expect((await one.heard.until(2))[1]).toMatchObject({ by: 'heir', delivery: { redriven: true } });
  });

  it('waits for a consumer that never took a redrive before', async () => {
    const one = setting();
    const { subscription } = await one.consume();
    await one.publish();
    const [letter] = await one.dead(1);
    await subscription.close();
    await process.bus.jsm.consumers.delete(STREAMS.dead.name, `local-${one.options.name}`);
    one.state.failing = false;
    await storeRedrive(process.bus.js, letter!);
    await using _ = await one.consume('heir');
    expect((await one.heard.until(2))[1]).toMatchObject({ by: 'heir', delivery: { redriven: true } });
  });

  it('comes to the consumer of its own stream, where another has the same name', async () => {
    const local = setting();
    const global = { ...local.options, scope: 'global' as const };
    const heard = new Collected<BusEvent>();
    await using _ = await local.consume();
    const other = process.bus.consume(global, async (event) => heard.add(event));
    await other.ready;
    await local.publish();
    const [letter] = await local.dead(1);
    local.state.failing = false;
    await storeRedrive(process.bus.js, letter!);
    await local.heard.until(2);
    await settled(local.options);
    await settled(global);
    expect(heard.items).toEqual([]);
    await other.close();
  });

  it('on a topic that its consumer does not handle any more is a dead letter again, not lost', async () => {
    const one = setting();
    const { subscription } = await one.consume();
    await one.publish();
    const [letter] = await one.dead(1);
    await subscription.close();
    await using _ = await one.consume('newer', process, { filters: [`-.${one.topic}.other`] });
    await storeRedrive(process.bus.js, letter!);
    expect((await one.dead(2))[1]).toMatchObject({ id: letter!.id, code: 'topic_unhandled', redrives: 1 });
    expect(one.heard.items).toHaveLength(1);
  });

  it.each([
    ['another audience', '.acme.', '.beta.'],
    ['another instance', '.main.', '.other.'],
  ])('never brings an event of %s to the handler, whatever it says', async (_, own, foreign) => {
    const one = setting();
    await using _one = await one.consume();
    await one.publish();
    const [letter] = await one.dead(1);
    one.state.failing = false;
    await storeRedrive(process.bus.js, { ...letter!, subject: letter!.subject.replace(own, foreign) });
    expect((await one.dead(2))[1]).toMatchObject({ code: 'topic_unhandled', redrives: 1 });
    expect(one.heard.items).toHaveLength(1);
  });

  it('shares its process with new events: no more of both are in work than may be', async () => {
    const one = setting({ maxInFlight: 2 });
    const { subscription } = await one.consume();
    for (let n = 0; n < 10; n++) await one.publish(n);
    const letters = await one.dead(10);
    await subscription.close();
    let working = 0;
    let most = 0;
    const done = new Collected<boolean>();
    const heir = process.bus.consume(one.options, async (_, { redriven }) => {
      most = Math.max(most, ++working);
      await new Promise((resolve) => setTimeout(resolve, 5));
      working -= 1;
      done.add(redriven);
    });
    await heir.ready;
    await Promise.all([
      ...letters.map((letter) => storeRedrive(process.bus.js, letter)),
      ...letters.map((_, n) => one.publish(100 + n)),
    ]);
    await done.until(20);
    expect(done.items.filter((redriven) => redriven)).toHaveLength(10);
    expect(most).toBe(2);
    await heir.close();
  });

  it('keeps its names and bytes, whatever they hold', async () => {
    const one = setting({ audience: null });
    await using _ = await one.consume();
    const subject = `ph.=2A=3E=2E=C3=A9.local.main.-.${one.topic}`;
    await process.bus.js.publish(subject, '{"é":1.0}');
    const [letter] = await one.dead(1);
    await storeRedrive(process.bus.js, letter!);
    const [first, second] = await one.heard.until(2);
    expect(second!.event).toEqual(first!.event);
    expect(second!.event).toMatchObject({
      audience: '*>.é',
      id: `${first!.event.position.epoch}-${letter!.sequence}`,
    });
    expect(Buffer.from(second!.event.bytes).toString()).toBe('{"é":1.0}');
  });
});

describe('redrives', () => {
  it('are taken once the stream takes them, from a server of before there were any; events do not wait for that', async () => {
    await using one = await startBus();
    const wanted = streamConfigs({ maxAgeSeconds: 3600, maxBytes: 256 * 1024 * 1024, replicas: 1 });
    const dead = wanted.find(({ name }) => name === STREAMS.dead.name)!;
    await one.bus.jsm.streams.update(STREAMS.dead.name, { subjects: [STREAMS.dead.subjects] });
    const heard = new Collected<boolean>();
    const subscription = one.bus.consume(
      { name: 'c', scope: 'local', audience: 'acme', filters: ['-.a'] },
      async (_, { redriven }) => {
        heard.add(redriven);
        if (!redriven) throw new PermanentFailure('refused', 'as told');
      },
    );
    await one.bus.publish(draftOf('a', {}, { scope: 'local' }));
    const [letter] = await messagesOf('ph-dead.c', 1, one);
    await expect(storeRedrive(one.bus.js, letter!)).rejects.toThrow();
    const [outcome] = await provisionStreams(one.nc, [dead]);
    expect(outcome).toMatchObject({ outcome: 'updated', changed: [{ setting: 'subjects' }] });
    await storeRedrive(one.bus.js, letter!);
    expect(await heard.until(2)).toEqual([false, true]);
    await subscription.close();
  });

  const accidents: [what: string, befall: (bus: ServedBus) => Promise<unknown>][] = [
    ['their consumer was deleted', ({ bus }) => bus.jsm.consumers.delete(STREAMS.dead.name, 'local-c')],
    ['their stream was deleted', ({ bus }) => bus.jsm.streams.delete(STREAMS.dead.name)],
    [
      'the server restarted',
      async ({ nats, nc }) => {
        const back = (async () => {
          for await (const { type } of nc.status()) if (type === 'reconnect') return;
        })();
        await nats.kill();
        await nats.start();
        await back;
      },
    ],
  ];

  it.each(accidents)('are taken again after %s', async (_, befall) => {
    await using one = await startBus();
    const heard = new Collected<boolean>();
    const subscription = one.bus.consume(
      { name: 'c', scope: 'local', audience: 'acme', filters: ['-.a'] },
      async (_, { redriven }) => {
        heard.add(redriven);
        if (!redriven) throw new PermanentFailure('refused', 'as told');
      },
    );
    await subscription.ready;
    await one.bus.publish(draftOf('a', {}, { scope: 'local' }));
    const [letter] = await messagesOf('ph-dead.c', 1, one);
    await eventually(() =>
      one.bus.jsm.consumers.info(STREAMS.dead.name, 'local-c').then(Boolean, () => false),
    );
    await befall(one);
    await prepareBus(one.nats);
    await storeRedrive(one.bus.js, letter!);
    expect(await heard.until(2)).toEqual([false, true]);
    await subscription.close();
  });
});
