/** Consumers that debounce, and leave repeats out, as processes that are killed while events wait in them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connectPubSub, type SubscribeOptions } from '@posthorn/bus';
import { Collected, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import { buildIsFresh } from '../tools/checkout.mjs';

let nats: TestNats;

beforeAll(async () => {
  if (!buildIsFresh()) throw new Error('dist/ is missing or older than the sources: run npm run build');
  nats = await startNats();
  await prepareBus(nats);
});

afterAll(async () => {
  await nats[Symbol.asyncDispose]();
});

/** Processes of one consumer, of which one after another is killed and replaced. */
class Consumers implements AsyncDisposable {
  /** What the handlers got, and in which process. */
  readonly handled = new Collected<{ id: string; process: ChildProcess }>();
  readonly #running: ChildProcess[] = [];
  readonly #topic: string;
  readonly #options: SubscribeOptions;

  constructor(topic: string, options: SubscribeOptions) {
    this.#topic = topic;
    this.#options = options;
  }

  async add(): Promise<void> {
    const program = join(import.meta.dirname, 'support', 'consumer-process.mjs');
    const args = [program, nats.url, this.#topic, JSON.stringify(this.#options)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#running.push(child);
    await new Promise<void>((resolve) => {
      createInterface(child.stdout).on('line', (line) => {
        if (line === 'ready') resolve();
        else this.handled.add({ id: line, process: child });
      });
    });
  }

  /** Kills the one that runs for longest. */
  async kill(): Promise<void> {
    const child = this.#running.shift()!;
    child.kill('SIGKILL');
    await once(child, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#running.length > 0) await this.kill();
  }
}

/** Publishes while processes are killed and replaced; what the handlers got, and what twice. */
async function run(
  topic: string,
  options: SubscribeOptions,
  publish: (to: (message: object, id: string) => Promise<unknown>) => Promise<void>,
  expected: number,
) {
  await using consumers = new Consumers(topic, { durable: 'kills', ackWait: 1_000, ...options });
  await Promise.all([consumers.add(), consumers.add(), consumers.add()]);
  const pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source: 'publisher' });
  let publishing = true;
  const killing = (async () => {
    while (publishing) {
      await sleep(500);
      await Promise.all([consumers.kill(), consumers.add()]);
    }
  })();
  await publish((message, id) => pubsub.global.topic(topic).publish(message, { id }));
  publishing = false;
  await killing;
  await consumers.handled.until((items) => new Set(items.map(({ id }) => id)).size >= expected);
  // Longer than any event could still wait for a process that was killed.
  await sleep(2_000);
  await pubsub.close();
  const { items } = consumers.handled;
  // Its process may have been killed before the event was settled: no consumer can do better.
  const unexplained = items.filter(({ id }, i) =>
    items.slice(0, i).some((one) => one.id === id && !one.process.killed),
  );
  return { ids: new Set(items.map(({ id }) => id)), unexplained };
}

describe('a durable consumer whose processes are killed', () => {
  it('debounces: the last of each burst is handled, and nothing else', async () => {
    const last: string[] = [];
    const { ids, unexplained } = await run(
      'kills/bursts',
      { debounce: { by: 'key', ms: 800 } },
      async (publish) => {
        for (let burst = 0; burst < 4; burst++) {
          for (let n = 0; n < 5; n++) {
            await Promise.all(
              Array.from({ length: 8 }, (_, key) => publish({ key }, `burst ${burst} of ${key}, ${n}`)),
            );
            await sleep(40);
          }
          last.push(...Array.from({ length: 8 }, (_, key) => `burst ${burst} of ${key}, 4`));
          await sleep(1_100);
        }
      },
      32,
    );
    expect([...ids].sort()).toEqual(last.sort());
    expect(unexplained).toEqual([]);
  }, 60_000);

  it('leaves repeats out: one of each is handled', async () => {
    const { ids, unexplained } = await run(
      'kills/repeats',
      { distinct: { by: ['hash', 'count'] } },
      async (publish) => {
        for (let count = 0; count < 30; count++) {
          await Promise.all(
            ['h1', 'h2', 'h3'].flatMap((hash) =>
              [1, 2, 3].map((n) => publish({ hash, count }, `${hash} ${count}, ${n}`)),
            ),
          );
          await sleep(80);
        }
      },
      90,
    );
    const changes = [...ids].map((id) => id.split(',')[0]);
    expect(changes).toHaveLength(90);
    expect(new Set(changes).size).toBe(90);
    expect(unexplained).toEqual([]);
  }, 60_000);
});
