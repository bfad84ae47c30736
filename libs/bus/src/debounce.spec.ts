import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Collected, eventually, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import fc from 'fast-check';
import { connectPubSub, type PubSub, type SubscribeOptions } from './pubsub.js';

let nats: TestNats;
let counter = 0;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats);
});

afterAll(async () => {
  await nats[Symbol.asyncDispose]();
});

interface Handled {
  readonly id: string;
  readonly by: number;
}

/** A connection of its own, as each process of a service has. */
function open(source = 'test'): PubSub & AsyncDisposable {
  const pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source });
  return Object.assign(pubsub, { [Symbol.asyncDispose]: () => pubsub.close() });
}

/** So many processes of one durable consumer, and what their handlers got. */
async function consume(topic: string, processes: number, options: SubscribeOptions) {
  const handled = new Collected<Handled>();
  const pubsubs = Array.from({ length: processes }, () => open());
  const subscriptions = pubsubs.map((pubsub, by) =>
    pubsub.global
      .topic(topic)
      .subscribe((_, { event }) => handled.add({ id: event.id, by }), { durable: 'debounced', ...options }),
  );
  await Promise.all(subscriptions.map(({ ready }) => ready));
  return {
    handled,
    subscriptions,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(pubsubs.map((pubsub) => pubsub.close()));
    },
  };
}

/** When the stream stored each event, by its id: of what was published until the end is asked for. */
async function stored(pubsub: PubSub, topic: string) {
  const events: { id: string; key: unknown; at: number }[] = [];
  await pubsub.global.topic(topic).subscribe(
    (payload, { event, delivery }) => {
      events.push({
        id: event.id,
        key: `${event.path} ${(payload as { key?: unknown }).key}`,
        at: Number(delivery!.storedAt / 1_000_000n),
      });
    },
    { durable: 'clock' },
  ).ready;
  return events;
}

/** The last of each burst, by the stream's clock. */
function lastOnes(events: readonly { id: string; key: unknown; at: number }[], ms: number): string[] {
  return events
    .filter(
      ({ key, at }, i) => !events.slice(i + 1).some((later) => later.key === key && later.at - at <= ms),
    )
    .map(({ id }) => id);
}

describe('debounce', () => {
  it('hands over the last event of a burst, once the quiet time is over', async () => {
    const topic = `sync${++counter}`;
    await using pubsub = open();
    await using consumer = await consume(topic, 1, { debounce: { by: 'key', ms: 200 } });
    const began = Date.now();
    for (const id of ['1', '2', '3']) {
      await pubsub.global.topic(topic).publish({ key: 'a' }, { id: `${topic} ${id}` });
      await sleep(50);
    }
    await consumer.handled.until(1);
    expect(Date.now() - began).toBeGreaterThanOrEqual(300);
    await pubsub.global.topic(topic).publish({ key: 'a' }, { id: `${topic} 4` });
    expect((await consumer.handled.until(2)).map(({ id }) => id)).toEqual([`${topic} 3`, `${topic} 4`]);
  });

  it('keeps topics, values and events without one apart', async () => {
    const name = `sync${++counter}`;
    await using pubsub = open();
    await using consumer = await consume(`${name}/*`, 1, { debounce: { by: ['key', 'part'], ms: 150 } });
    const publish = (user: string, message: object, id: string) =>
      pubsub.global.topic(`${name}/${user}`).publish(message, { id });
    await Promise.all([
      publish('ann', { key: 'a', part: 1 }, `${name} 1`),
      publish('ann', { key: 'a', part: 2 }, `${name} 2`),
      publish('bob', { key: 'a', part: 1 }, `${name} 3`),
      publish('ann', { key: 'a' }, `${name} 4`),
      publish('ann', { key: 'a', part: null }, `${name} 5`),
    ]);
    expect(new Set((await consumer.handled.until(5)).map(({ id }) => id)).size).toBe(5);
  });

  it('judges old events at once, by when they were stored', async () => {
    const topic = `sync${++counter}`;
    await using pubsub = open();
    const ids = ['1', '2', '3', '4'].map((n) => `${topic} ${n}`);
    for (const id of ids.slice(0, 2)) await pubsub.global.topic(topic).publish({ key: 'a' }, { id });
    await sleep(1_100);
    for (const id of ids.slice(2)) await pubsub.global.topic(topic).publish({ key: 'a' }, { id });
    await sleep(1_100);
    const began = Date.now();
    await using consumer = await consume(topic, 2, { debounce: { by: 'key', ms: 1_000 } });
    await consumer.handled.until(1);
    expect(Date.now() - began).toBeLessThan(900);
    expect((await consumer.handled.until(2)).map(({ id }) => id)).toEqual([ids[1], ids[3]]);
  });

  it('gives what waits to another process when one closes', async () => {
    const topic = `sync${++counter}`;
    await using pubsub = open();
    await using first = await consume(topic, 1, { debounce: { by: 'key', ms: 1_000 } });
    await pubsub.global.topic(topic).publish({ key: 'a' }, { id: `${topic} 1` });
    await sleep(200);
    const began = Date.now();
    await first.subscriptions[0]!.close();
    expect(Date.now() - began).toBeLessThan(800);
    await using second = await consume(topic, 1, { debounce: { by: 'key', ms: 1_000 } });
    expect(await second.handled.until(1)).toEqual([{ id: `${topic} 1`, by: 0 }]);
    expect(first.handled.items).toEqual([]);
  });

  it('finds the last of each burst in any schedule, over several processes and more than they may hold', async () => {
    const ms = 120;
    const step = fc.record({
      user: fc.constantFrom('ann', 'bob'),
      key: fc.constantFrom('a', 'b', undefined),
      count: fc.integer({ min: 1, max: 8 }),
      pause: fc.oneof(fc.integer({ min: 0, max: 60 }), fc.constant(200)),
    });
    await using pubsub = open();
    const follow = async (steps: readonly Step[]) => {
      const name = `sync${++counter}`;
      const events = await stored(pubsub, `${name}/*`);
      await using consumer = await consume(`${name}/*`, 3, { debounce: { by: 'key', ms }, maxInFlight: 4 });
      let published = 0;
      for (const { user, key, count, pause } of steps) {
        const message = key === undefined ? {} : { key };
        await Promise.all(
          Array.from({ length: count }, () =>
            pubsub.global.topic(`${name}/${user}`).publish(message, { id: `${name} ${++published}` }),
          ),
        );
        await sleep(pause);
      }
      await eventually(async () => events.length === published);
      // One without the member stands alone.
      const keyed = events.map((event) =>
        String(event.key).endsWith('undefined') ? { ...event, key: Symbol() } : event,
      );
      const wanted = lastOnes(keyed, ms).sort();
      await consumer.handled.until(wanted.length);
      await sleep(2 * ms);
      expect(consumer.handled.items.map(({ id }) => id).sort()).toEqual(wanted);
    };
    type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
    const schedule = fc.array(step, { minLength: 5, maxLength: 25 });
    // Side by side: most of their time is waiting.
    const schedules = fc.array(schedule, { minLength: 6, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(schedules, async (all) => {
        await Promise.all(all.map(follow));
      }),
      { numRuns: 1 },
    );
  }, 120_000);

  it('is for durable subscriptions, with members and times that can be', () => {
    const pubsub = open();
    const subscribe = (options: SubscribeOptions) => () =>
      pubsub.global.topic('a/b').subscribe(() => {}, options);
    const invalid = expect.objectContaining({ code: 'request_invalid' });
    for (const options of [
      { debounce: { by: 'a', ms: 5 } },
      { distinct: { by: 'a' } },
      { durable: 'd', debounce: { by: [], ms: 5 } },
      { durable: 'd', debounce: { by: '', ms: 5 } },
      { durable: 'd', debounce: { by: 'a', ms: 0 } },
      { durable: 'd', debounce: { by: 'a', ms: 3_600_001 } },
      { durable: 'd', distinct: { by: 'a', ms: 8 * 24 * 3_600_000 } },
    ])
      expect(subscribe(options)).toThrow(invalid);
    return pubsub.close();
  });
});
