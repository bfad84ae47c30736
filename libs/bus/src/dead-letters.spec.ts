import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { headers as newHeaders } from '@nats-io/transport-node';
import { ProblemError, STREAMS } from '@posthorn/contracts';
import { Collected, draftOf, prepareBus, rawPublish, type ServedBus, startBus } from '@posthorn/testing';
import { type DeadLetter, readDeadLetter } from './dead-letters.js';
import type { BusEvent, DurableHandler, DurableOptions, DurableSubscription } from './port.js';
import { PermanentFailure } from './settlement.js';

let process: ServedBus;
let counter = 0;

beforeAll(async () => {
  process = await startBus({
    topics: [{ topic: 'checked', audience: 'acme', schema: { type: 'object', required: ['n'] } }],
  });
});

afterAll(async () => process[Symbol.asyncDispose]());

interface Consuming extends AsyncDisposable {
  readonly name: string;
  readonly topic: string;
  readonly subscription: DurableSubscription;
  publish(n: number): Promise<number>;
  /** The consumer's dead letters, once there are that many. */
  dead(
    count: number,
  ): Promise<(Omit<DeadLetter, 'headers'> & { readonly headers: Record<string, string[]> })[]>;
  outcomes(): string[];
}

async function consuming(handler: DurableHandler, more: Partial<DurableOptions> = {}): Promise<Consuming> {
  const topic = `t${++counter}`;
  const name = `consumer-${counter}`;
  const before = process.seen.settled.length;
  const subscription = process.bus.consume(
    { name, scope: 'local', audience: 'acme', filters: [`-.${topic}`], backoff: [10, 20], ...more },
    handler,
  );
  await subscription.ready;
  return {
    name,
    topic,
    subscription,
    outcomes: () => process.seen.settled.slice(before),
    publish: async (n) => {
      const draft = draftOf(topic, { n }, { scope: 'local', id: `e${counter}-${n}` });
      return (await process.bus.publish(draft)).position!.sequence;
    },
    dead: async (count) => {
      const consumer = await process.bus.js.consumers.get(STREAMS.dead.name, {
        filter_subjects: `ph-dead.${name}`,
      });
      const letters = [];
      for await (const message of await consumer.fetch({ max_messages: count, expires: 5_000 })) {
        letters.push({
          ...readDeadLetter(message.headers, message.data)!,
          headers: Object.fromEntries(
            message.headers!.keys().map((key) => [key, message.headers!.values(key)]),
          ),
        });
      }
      expect(letters).toHaveLength(count);
      expect((await consumer.info()).num_pending).toBe(0);
      return letters;
    },
    [Symbol.asyncDispose]: () => subscription.close(),
  };
}

describe('an event whose handler fails', () => {
  it('is tried again until it succeeds', async () => {
    const tries = new Collected<number>();
    await using one = await consuming(async (_, delivery) => {
      tries.add(delivery.tries);
      if (delivery.tries < 3) throw new Error('not yet');
    });
    await one.publish(1);
    expect(await tries.until(3)).toEqual([1, 2, 3]);
    await one.subscription.close();
    expect(one.outcomes()).toEqual(['retry', 'retry', 'ack']);
  });

  it('is a dead letter when its tries are used up', async () => {
    const tries = new Collected<number>();
    await using one = await consuming(async (_, delivery) => {
      tries.add(delivery.tries);
      throw new Error('never\r\nNats-Rollup: all');
    });
    const sequence = await one.publish(1);
    const [letter] = await one.dead(1);
    expect(letter).toMatchObject({
      consumer: one.name,
      code: 'tries_exhausted',
      reason: 'never Nats-Rollup: all',
      tries: 3,
      subject: `ph.acme.local.main.-.${one.topic}`,
      stream: 'PH_LOCAL',
      sequence,
    });
    expect(Date.parse(letter!.time)).toBeGreaterThan(Date.now() - 60_000);
    expect(tries.items).toEqual([1, 2, 3]);
  });

  it('for good is a dead letter after the first try, with its bytes and its headers', async () => {
    await using one = await consuming(async () => {
      throw new PermanentFailure('managers_unknown', 'x'.repeat(5_000));
    });
    const payload = '{ "n" : 1.0, "é": "\\u00e9" }';
    const headers = newHeaders();
    headers.set('ce-id', 'my-id');
    headers.set('X-Own', 'kept');
    headers.append('X-Own', 'twice');
    headers.set('Posthorn-Dead-Code', 'forged');
    headers.set('Nats-Expected-Stream', 'PH_LOCAL');
    await process.bus.js.publish(`ph.acme.local.main.-.${one.topic}`, payload, { headers });
    const [letter] = await one.dead(1);
    expect(new TextDecoder().decode(letter!.payload)).toBe(payload);
    expect(letter).toMatchObject({ code: 'managers_unknown', reason: 'x'.repeat(1_000), tries: 1 });
    expect(letter!.headers).toMatchObject({ 'ce-id': ['my-id'], 'X-Own': ['kept', 'twice'] });
    expect(letter!.headers).not.toHaveProperty('Nats-Expected-Stream');
    expect(letter!.headers['Posthorn-Dead-Code']).toEqual(['managers_unknown']);
    await one.subscription.close();
    expect(one.outcomes()).toEqual(['dead']);
  });

  it('for good is a dead letter, however much its handler says', async () => {
    await using consumer = await consuming(async () => {
      throw new PermanentFailure('c'.repeat(200_000), 'r'.repeat(200_000), { waitsFor: 'w'.repeat(200_000) });
    });
    await consumer.publish(1);
    expect(await consumer.dead(1)).toMatchObject([
      { code: 'c'.repeat(100), reason: 'r'.repeat(1_000), waitsFor: undefined, tries: 1 },
    ]);
  });

  it('because a service is away is held, however long that takes, and goes on when it is back', async () => {
    let away = true;
    const calls = new Collected<number>();
    await using one = await consuming(async (_, { tries }) => {
      calls.add(tries);
      if (away) throw new ProblemError('unavailable', 'The database is away');
      if (tries === 1) throw new Error('and one more for a passing reason');
    });
    await one.publish(1);
    await calls.until(8);
    away = false;
    await calls.until((tries) => tries.includes(2));
    await one.subscription.close();
    expect(one.outcomes().filter((outcome) => outcome !== 'hold')).toEqual(['retry', 'ack']);
  });

  it('and is held goes back to the stream when its process ends', async () => {
    const held = new Collected<BusEvent>();
    await using one = await consuming(
      async (event) => {
        held.add(event);
        throw new ProblemError('unavailable', 'The database is away');
      },
      { backoff: [60_000] },
    );
    await one.publish(1);
    await held.until(1);
    await one.subscription.close();
    const heard = new Collected<BusEvent>();
    const heir = process.bus.consume(
      { name: one.name, scope: 'local', audience: 'acme', filters: [`-.${one.topic}`] },
      async (event) => heard.add(event),
    );
    await heard.until(1);
    await heir.close();
  });
});

describe('an event that is none', () => {
  it.each([
    ['not JSON', 'not json', 'The payload is not UTF-8 JSON'],
    ['no object', '[1]', 'The payload is no JSON object'],
    ['not UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), 'The payload is not UTF-8 JSON'],
  ])('because its payload is %s is a dead letter, and no handler sees it', async (_, payload, reason) => {
    const heard = new Collected<BusEvent>();
    await using one = await consuming(async (event) => heard.add(event));
    await process.bus.js.publish(`ph.acme.local.main.-.${one.topic}`, payload);
    const [letter] = await one.dead(1);
    expect(letter).toMatchObject({ code: 'payload_invalid', reason, tries: 1 });
    expect(Buffer.compare(letter!.payload, Buffer.from(payload))).toBe(0);
    expect(heard.items).toEqual([]);
  });

  it('because it breaks its schema is a dead letter that says where', async () => {
    await using one = await consuming(async () => {}, { filters: ['-.checked'] });
    await process.bus.js.publish('ph.acme.local.main.-.checked', '{}');
    expect((await one.dead(1))[0]!.reason).toContain('/n is required');
  });

  it('because no topic has its subject is a dead letter', async () => {
    await using one = await consuming(async () => {}, { filters: ['bob.system'] });
    await process.bus.js.publish('ph.acme.local.main.bob.system', '{}');
    expect(await one.dead(1)).toMatchObject([{ reason: 'The subject is no topic' }]);
  });
});

describe('headers that cannot be read', () => {
  it('stop neither the event nor, where it fails, its dead letter', async () => {
    const heard = new Collected<string>();
    await using one = await consuming(async ({ message, id, position }) => {
      heard.add(id === `${position.epoch}-${position.sequence}` ? 'known by its position' : id);
      if (message.fail) throw new PermanentFailure('refused', 'as told');
    });
    const subject = `ph.acme.local.main.-.${one.topic}`;
    await rawPublish(process.nats, subject, 'NATS/1.0\r\nBad Name: x\r\n\r\n', '{}');
    await rawPublish(process.nats, subject, 'NATS/1.0\r\nX: a\nb\r\n\r\n', '{"fail":true}');
    expect(await heard.until(2)).toEqual(['known by its position', 'known by its position']);
    expect(await one.dead(1)).toMatchObject([{ code: 'refused' }]);
  });
});

describe('a dead letter', () => {
  it('is stored once when the process dies before the original is settled', async () => {
    await using one = await consuming(async () => {
      throw new PermanentFailure('refused', 'always');
    });
    await one.publish(1);
    await one.dead(1);
    await one.subscription.close();
    // As if the settlement had been lost: the consumer is made anew and delivers the event again.
    await process.bus.jsm.consumers.delete('PH_LOCAL', one.name);
    const again = new Collected<BusEvent>();
    const options = {
      name: one.name,
      scope: 'local',
      audience: 'acme',
      filters: [`-.${one.topic}`],
    } as const;
    const second = process.bus.consume(options, async (event) => {
      again.add(event);
      throw new PermanentFailure('refused', 'always');
    });
    await again.until(1);
    await second.close();
    await one.dead(1);
  });

  it('that cannot be stored keeps its event in the stream', async () => {
    await using one = await startBus();
    const tries = new Collected<number>();
    const subscription = one.bus.consume(
      { name: 'c', scope: 'local', audience: 'acme', filters: ['-.a'] },
      async (_, delivery) => {
        tries.add(delivery.tries);
        throw new PermanentFailure('refused', 'always');
      },
    );
    await subscription.ready;
    await one.bus.jsm.streams.delete(STREAMS.dead.name);
    await one.bus.publish(draftOf('a', {}, { scope: 'local' }));
    await tries.until(1);
    await prepareBus(one.nats);
    await tries.until(2);
    await subscription.close();
    expect((await one.bus.jsm.streams.info(STREAMS.dead.name)).state.messages).toBe(1);
  });

  it('is read from nothing else', () => {
    expect(readDeadLetter(undefined, new Uint8Array())).toBeUndefined();
    expect(readDeadLetter(newHeaders(), new Uint8Array())).toBeUndefined();
  });
});
