import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { PubSub } from '@posthorn/bus';
import { type AppName, startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket } from './support/courier-client.js';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

/** Milliseconds between two invites: a stream, not a flood, since every one of them is counted at the end. */
const PACE = 5;

/** Publishes one invite after another until stopped; each is tried until it is accepted, under one id. */
class InviteStream {
  readonly communities: string[] = [];
  readonly #pubsub: PubSub;
  readonly #prefix: string;
  #stopped = false;
  readonly #running: Promise<void>;

  constructor(pubsub: PubSub, prefix: string) {
    this.#pubsub = pubsub;
    this.#prefix = prefix;
    this.#running = this.#run();
  }

  /** Resolves once so many more were accepted. */
  async more(n: number): Promise<void> {
    const goal = this.communities.length + n;
    await eventually(async () => this.communities.length >= goal || undefined);
  }

  async stop(): Promise<string[]> {
    this.#stopped = true;
    await this.#running;
    return this.communities;
  }

  async #run(): Promise<void> {
    const topic = this.#pubsub.local.topic('community:membership:invite');
    for (let n = 0; !this.#stopped; n++) {
      const community = `${this.#prefix}-${n}`;
      for (let accepted = false; !accepted && !this.#stopped; ) {
        accepted = await topic
          .publish({ author: 'alice', target: 'bob', community }, { id: community })
          .then(() => true)
          .catch(() => false);
        if (accepted) this.communities.push(community);
      }
      await new Promise((resolve) => setTimeout(resolve, PACE));
    }
  }
}

const communitiesOf = (items: { complement: { id: string } }[]) =>
  items.map(({ complement }) => complement.id).sort();

describe('kill -9 of an app under a stream of events', () => {
  let cluster: TestCluster;
  let tenant: Tenant;
  beforeAll(async () => {
    cluster = await startCluster();
    tenant = await createTenant(cluster, 'acme');
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  it.each<AppName>(['notifier', 'gateway', 'registry', 'auth'])(
    'of %s loses no notification and doubles none',
    async (name) => {
      const pubsub = tenant.pubsub();
      const announced: string[] = [];
      const created = pubsub.global
        .topic('usernotification:created')
        .subscribe((notification) => announced.push(notification.complement.id));
      await created.ready;
      const stream = new InviteStream(pubsub, name);
      for (let kill = 0; kill < 3; kill++) {
        await stream.more(40);
        await cluster.app(name).kill();
        await stream.more(20);
        await cluster.app(name).start();
      }
      await stream.more(20);
      const sent = await stream.stop();
      const bob = await tenant.as('bob');
      const received = await eventually(async () => {
        const items = (await wholeInbox(bob)).filter(({ complement }) =>
          complement.id.startsWith(`${name}-`),
        );
        return items.length >= sent.length ? items : undefined;
      }, 60_000);
      await eventually(async () => announced.length >= sent.length || undefined, 60_000);
      expect(communitiesOf(received)).toEqual([...sent].sort());
      expect([...announced].sort()).toEqual([...sent].sort());
      await pubsub.close();
    },
    150_000,
  );
});

describe('two replicas of each app', () => {
  let cluster: TestCluster;
  let tenant: Tenant;
  beforeAll(async () => {
    cluster = await startCluster({ replicas: { auth: 2, registry: 2, notifier: 2, gateway: 2 } });
    tenant = await createTenant(cluster, 'acme');
  }, 120_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  it('answer each call once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => tenant.service('POST', '/v1/topic', { topic: 'race/one' })),
    );
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 201)).toHaveLength(1);
    expect(statuses.filter((status) => status === 200)).toHaveLength(19);
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
  });

  it('handle each event once, and a socket at either gateway hears it', async () => {
    const pubsub = tenant.pubsub();
    const token = await tenant.token('carol');
    const sockets = await Promise.all(cluster.gatewayUrls.map((url) => CourierSocket.open(url, token)));
    for (const socket of sockets) await socket.subscribe('usernotification:created');
    const communities = Array.from({ length: 200 }, (_, n) => `c-${n}`);
    const topic = pubsub.local.topic('community:membership:invite');
    await Promise.all(
      communities.map((community) => topic.publish({ author: 'alice', target: 'carol', community })),
    );
    for (const socket of sockets) {
      const frames = await socket.count('message', communities.length, 30_000);
      await socket.settle();
      expect(socket.frames.filter(({ action }) => action === 'message')).toHaveLength(communities.length);
      expect(communitiesOf(frames.map(({ message }) => message as never))).toEqual([...communities].sort());
      await socket[Symbol.asyncDispose]();
    }
    expect(communitiesOf(await wholeInbox(await tenant.as('carol')))).toEqual([...communities].sort());
    await pubsub.close();
  }, 60_000);
});
