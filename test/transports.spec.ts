/**
 * The same script of publishes, new topics, drops and resumes over a socket, a long poll and an event stream: each
 * receives every event once, in the order of its topic, whichever gateway it comes back to.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import fc from 'fast-check';
import { CourierSocket } from './support/courier-client.js';
import { EventStreamClient } from './support/event-source.js';
import { Poller } from './support/poller.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

/** An event as a client has it. */
interface Received {
  readonly topic: string;
  readonly n: number;
}

/** A client of one transport, which remembers where it stood. */
interface Client {
  readonly received: readonly Received[];
  readonly connected: boolean;
  /** Listens to some topics, from where it stood: those that are new from now on. */
  connect(gateway: number, topics: readonly string[]): Promise<void>;
  drop(): Promise<void>;
}

const TRANSPORTS = ['socket', 'poll', 'stream'] as const;
type Transport = (typeof TRANSPORTS)[number];

const transport = fc.constantFrom(...TRANSPORTS);
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      topic: fc.nat(3),
      count: fc.integer({ min: 1, max: 8 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('drop' as const), transport }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('resume' as const), transport, gateway: fc.nat(1) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('another topic' as const) }) },
);

describe('socket, long poll and event stream', () => {
  let cluster: TestCluster;
  let acme: Tenant;
  let token: string;
  let runs = 0;

  beforeAll(async () => {
    cluster = await startCluster({ replicas: { gateway: 2 }, env: { BUS_TIMEOUT: '2s' } });
    acme = await createTenant(cluster, 'acme');
    token = await acme.token('bob');
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const urlOf = (gateway: number) => cluster.gatewayUrls[gateway]!;

  class OnSocket implements Client {
    readonly #received: Received[] = [];
    /** The last position of each topic. */
    readonly #places = new Map<string, string>();
    readonly #subscribed = new Set<string>();
    #socket: CourierSocket | undefined;

    get received(): readonly Received[] {
      return [...this.#received, ...this.#fresh()];
    }

    get connected(): boolean {
      return this.#socket !== undefined;
    }

    async connect(gateway: number, topics: readonly string[]): Promise<void> {
      this.#socket ??= await CourierSocket.open(urlOf(gateway), token);
      for (const topic of topics) {
        if (this.#subscribed.has(topic)) continue;
        this.#subscribed.add(topic);
        const { position, recovered } = await this.#socket.subscribe(topic, this.#places.get(topic));
        expect(recovered).not.toBe(false);
        if (!this.#places.has(topic)) this.#places.set(topic, String(position));
      }
    }

    async drop(): Promise<void> {
      const socket = this.#socket!;
      await socket[Symbol.asyncDispose]();
      this.#received.push(...this.#fresh());
      for (const { action, topic, position } of socket.frames) {
        if (action === 'message') this.#places.set(String(topic), String(position));
      }
      this.#socket = undefined;
      this.#subscribed.clear();
    }

    #fresh(): Received[] {
      const frames = this.#socket?.frames.filter(({ action }) => action === 'message') ?? [];
      return frames.map(({ topic, message }) => ({ topic: String(topic), n: (message as { n: number }).n }));
    }
  }

  class ByPolls implements Client {
    readonly received: Received[] = [];
    #poller: Poller | undefined;
    #last: string | null = null;
    #hangUp = new AbortController();
    #polling: Promise<void> | undefined;

    get connected(): boolean {
      return this.#poller !== undefined;
    }

    async connect(gateway: number, topics: readonly string[]): Promise<void> {
      if (this.#poller) await this.drop();
      const urls = [urlOf(gateway), urlOf(1 - gateway)];
      const poller = new Poller({ urls, database: 'acme', token, channels: topics, last: this.#last });
      this.#poller = poller;
      this.#hangUp = new AbortController();
      this.#polling = this.#poll(poller, this.#hangUp.signal);
    }

    async drop(): Promise<void> {
      const poller = this.#poller!;
      this.#hangUp.abort();
      await this.#polling;
      this.#last = poller.last;
      this.#poller = undefined;
    }

    async #poll(poller: Poller, signal: AbortSignal): Promise<void> {
      while (!signal.aborted) {
        const answer = await poller.poll(signal).catch(() => undefined);
        if (!answer?.body.message) continue;
        expect(answer.body.recovered).toBeUndefined();
        this.received.push({ topic: answer.body.channel, n: answer.body.message.n });
      }
    }
  }

  class OnStream implements Client {
    readonly #received: Received[] = [];
    #stream: EventStreamClient | undefined;
    #last = '';

    get received(): readonly Received[] {
      return [...this.#received, ...this.#fresh()];
    }

    get connected(): boolean {
      return this.#stream !== undefined;
    }

    async connect(gateway: number, topics: readonly string[]): Promise<void> {
      if (this.#stream) await this.drop();
      const url = `${urlOf(gateway)}/v1/stream?topics=${encodeURIComponent(topics.join(','))}`;
      const headers = { authorization: `Bearer ${token}` };
      this.#stream = await EventStreamClient.open(url, { headers, lastEventId: this.#last });
      expect(this.#stream.status).toBe(200);
    }

    async drop(): Promise<void> {
      const stream = this.#stream!;
      await stream[Symbol.asyncDispose]();
      this.#received.push(...this.#fresh());
      this.#last = stream.lastEventId;
      this.#stream = undefined;
    }

    #fresh(): Received[] {
      expect(this.#stream?.events.some(({ name }) => name === 'recovered') ?? false).toBe(false);
      return this.#stream?.events.map(({ name, data }) => ({ topic: name, n: JSON.parse(data).n })) ?? [];
    }
  }

  it('receive the same, whatever is dropped and resumed', async () => {
    await using pubsub = Object.assign(acme.pubsub(), {
      async [Symbol.asyncDispose]() {
        await pubsub.close();
      },
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        runs += 1;
        const topics = [`run${runs}/0`, `run${runs}/1`];
        const published: Received[] = [];
        const clients: Record<Transport, Client> = {
          socket: new OnSocket(),
          poll: new ByPolls(),
          stream: new OnStream(),
        };
        const publish = async (topic: string, count: number) => {
          for (let i = 0; i < count; i++) {
            const n = published.length;
            published.push({ topic, n });
            await pubsub.global.topic(topic).publish({ n });
          }
        };
        const all = Object.values(clients);
        try {
          for (const [i, client] of all.entries()) await client.connect(i % 2, topics);
          // A first event gives each of them a place to come back to.
          await publish(topics[0]!, 1);
          await eventually(async () => all.every(({ received }) => received.length === 1) || undefined);
          for (const one of steps) {
            if (one.kind === 'publish') await publish(topics[one.topic % topics.length]!, one.count);
            if (one.kind === 'drop' && clients[one.transport].connected) await clients[one.transport].drop();
            if (one.kind === 'resume' && !clients[one.transport].connected) {
              await clients[one.transport].connect(one.gateway, topics);
            }
            if (one.kind === 'another topic') {
              topics.push(`run${runs}/${topics.length}`);
              for (const client of all) if (client.connected) await client.connect(0, topics);
              // Whoever is away takes it up with what it missed; a socket has no place on it yet.
              if (!clients.socket.connected) await clients.socket.connect(0, topics);
            }
          }
          for (const [i, client] of all.entries()) if (!client.connected) await client.connect(i % 2, topics);
          await eventually(
            async () => all.every(({ received }) => received.length >= published.length) || undefined,
          );
          // Whatever came twice would be there once these are.
          await publish(topics[0]!, 1);
          await eventually(
            async () =>
              all.every(({ received }) => received.some(({ n }) => n === published.length - 1)) || undefined,
          );
          for (const topic of topics) {
            const of = (some: readonly Received[]) =>
              some.filter((each) => each.topic === topic).map(({ n }) => n);
            const wanted = of(published);
            const got = Object.entries(clients).map(([name, { received }]) => [name, of(received)]);
            expect(Object.fromEntries(got)).toEqual({ socket: wanted, poll: wanted, stream: wanted });
          }
        } finally {
          for (const client of all) if (client.connected) await client.drop();
        }
      }),
      { numRuns: 50 },
    );
  }, 240_000);
});
