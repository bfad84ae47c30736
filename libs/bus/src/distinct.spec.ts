import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { BUCKETS, EXAMPLES } from '@posthorn/contracts';
import { Collected, eventually, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import { announce } from './announce.js';
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

function open(): PubSub & AsyncDisposable {
  const pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source: 'test' });
  return Object.assign(pubsub, { [Symbol.asyncDispose]: () => pubsub.close() });
}

/** Events are done when the one that ends them is: it comes last, and is no repeat of any. */
async function consume(
  topic: string,
  processes: number,
  options: SubscribeOptions,
  handle = (_: unknown) => {},
) {
  const handled = new Collected<Record<string, unknown>>();
  const pubsubs = Array.from({ length: processes }, () => open());
  const subscriptions = pubsubs.map((pubsub) =>
    pubsub.global.topic(topic).subscribe(
      (payload) => {
        handle(payload);
        handled.add(payload as Record<string, unknown>);
      },
      { durable: 'distinct', ...options },
    ),
  );
  await Promise.all(subscriptions.map(({ ready }) => ready));
  return {
    handled,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(pubsubs.map((pubsub) => pubsub.close()));
    },
  };
}

describe('distinct', () => {
  it('shows a log line each time its count has grown, however often and by however many processes', async () => {
    const user = `alice${++counter}`;
    await using pubsub = open();
    await using consumer = await consume(`log_message.${user}`, 3, {
      distinct: { by: ['md5hash', 'count'] },
    });
    const { username: _, ...line } = EXAMPLES.log_message;
    const written = [1, 2, 2, 3, 3, 3, 1, 2, 3, 4];
    await Promise.all(
      ['h1', 'h2', 'h3'].flatMap((md5hash) =>
        written.map((count) => announce(pubsub, 'log_message', user, { ...line, md5hash, count })),
      ),
    );
    await consumer.handled.until(12);
    await sleep(300);
    expect(consumer.handled.items.map(({ md5hash, count }) => `${md5hash} ${count}`).sort()).toEqual(
      ['h1', 'h2', 'h3'].flatMap((hash) => [1, 2, 3, 4].map((count) => `${hash} ${count}`)),
    );
  });

  it('lets the same pass again once its time is over, to other consumers, and on other topics', async () => {
    const topic = `log${++counter}`;
    await using pubsub = open();
    const distinct = { by: 'hash', ms: 300 };
    await using one = await consume(`${topic}/*`, 2, { distinct });
    await using two = await consume(`${topic}/*`, 1, { distinct, durable: 'another' });
    const publish = (user: string) => pubsub.global.topic(`${topic}/${user}`).publish({ hash: 'h', user });
    await Promise.all([publish('ann'), publish('ann'), publish('bob')]);
    await sleep(400);
    await Promise.all([publish('ann'), publish('ann')]);
    await Promise.all([one, two].map(({ handled }) => handled.until(3)));
    await sleep(200);
    for (const { handled } of [one, two])
      expect(handled.items.map(({ user }) => user).sort()).toEqual(['ann', 'ann', 'bob']);
  });

  it('gives an event that failed to its handler again, and not its repeat', async () => {
    const topic = `log${++counter}`;
    await using pubsub = open();
    const tried: number[] = [];
    const handle = (payload: unknown) => {
      tried.push((payload as { n: number }).n);
      if (tried.length === 1) throw new Error('not yet');
    };
    await using consumer = await consume(topic, 2, { distinct: { by: 'hash' } }, handle);
    await pubsub.global.topic(topic).publish({ hash: 'h', n: 1 });
    await eventually(() => tried.length === 1);
    await pubsub.global.topic(topic).publish({ hash: 'h', n: 2 });
    expect(await consumer.handled.until(1)).toEqual([{ hash: 'h', n: 1 }]);
    expect(tried).toEqual([1, 1]);
  });

  it('goes on in a new bucket where the old one was lost', async () => {
    const topic = `log${++counter}`;
    await using pubsub = open();
    await using consumer = await consume(topic, 1, { distinct: { by: 'hash' } });
    await pubsub.global.topic(topic).publish({ hash: 'h', n: 1 });
    await consumer.handled.until(1);
    const nc = await connect({ servers: nats.url });
    await (await jetstreamManager(nc)).streams.delete(`KV_${BUCKETS.consumers}`);
    await nc.close();
    await pubsub.global.topic(topic).publish({ hash: 'h', n: 2 });
    expect(await consumer.handled.until(2)).toHaveLength(2);
  });

  it('works together with debounce: of what is left, repeats are left out', async () => {
    const topic = `log${++counter}`;
    await using pubsub = open();
    const options = { debounce: { by: 'hash', ms: 100 }, distinct: { by: ['hash', 'head'] } };
    await using consumer = await consume(topic, 2, options);
    for (const [head, pause] of [
      ['a', 0],
      ['b', 200],
      ['b', 200],
      ['c', 0],
    ] as const) {
      await pubsub.global.topic(topic).publish({ hash: 'h', head });
      await sleep(pause);
    }
    expect((await consumer.handled.until(2)).map(({ head }) => head)).toEqual(['b', 'c']);
  });
});
