/** The summary table of the ESN document, row by row, and the two events that its controllers publish on both scopes. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import type { PubSub, PubSubSubscription } from '@posthorn/bus';
import { CATALOGUE, EXAMPLES, type Scope, STREAMS, type TopicName } from '@posthorn/contracts';
import { Collected, startCluster, type TestCluster } from '@posthorn/testing';
import { createTenant, type Tenant } from './support/tenant.js';

interface Row {
  readonly module: string;
  readonly local?: { readonly publish?: readonly TopicName[]; readonly subscribe?: readonly TopicName[] };
  readonly global?: { readonly publish?: readonly TopicName[]; readonly subscribe?: readonly TopicName[] };
}

const TABLE: readonly Row[] = [
  { module: 'activitystreams', local: { subscribe: ['message:activity', 'community:join'] } },
  {
    module: 'community',
    local: {
      publish: [
        'community:join',
        'community:leave',
        'community:membership:invitation:cancel',
        'community:membership:invitation:decline',
        'community:membership:request:refuse',
        'community:membership:request:cancel',
        'community:membership:invite',
        'community:membership:request',
      ],
    },
  },
  { module: 'user/login', local: { publish: ['login:success', 'login:failure'] } },
  {
    module: 'invitation',
    local: {
      publish: [
        'invitation:init:failure',
        'invitation:init:success',
        'invitation:finalize:failure',
        'invitation:finalize:success',
        'invitation:process:failure',
        'invitation:process:success',
      ],
    },
  },
  { module: 'notification/notification', local: { publish: ['notification:external'] } },
  {
    module: 'notification/pubsub',
    local: {
      subscribe: [
        'community:join',
        'community:membership:invite',
        'community:membership:request',
        'community:membership:invitation:cancel',
        'community:membership:request:refuse',
        'notification:external',
      ],
    },
    global: { publish: ['usernotification:created'] },
  },
  { module: 'db/redis', local: { subscribe: ['mongodb:connectionAvailable'] } },
  { module: 'db/mongo', local: { publish: ['mongodb:connectionAvailable'] } },
  { module: 'configured', local: { publish: ['mongodb:connectionAvailable'] } },
  { module: 'templates', local: { subscribe: ['mongodb:connectionAvailable'] } },
  { module: 'pubsub/global', local: { subscribe: ['globalpubsub:config'] } },
  { module: 'domains', local: { publish: ['domain:invitations:sent'] } },
  {
    module: 'messages',
    local: { publish: ['message:activity', 'message:stored'] },
    global: { publish: ['message:activity', 'message:stored'] },
  },
  { module: 'setup-sessions', local: { subscribe: ['mongodb:connectionAvailable'] } },
];

const SCOPES = ['local', 'global'] as const;
const other = (scope: Scope): Scope => (scope === 'local' ? 'global' : 'local');

/** The modules that the table has for a topic. */
const modulesOf = (topic: string, what: 'publish' | 'subscribe', scopes: readonly Scope[] = SCOPES) =>
  TABLE.filter((row) => scopes.some((scope) => row[scope]?.[what]?.some((name) => name === topic))).map(
    ({ module }) => module,
  );

/** Who publishes what, and where; a topic that modules only subscribe to is published by somebody else. */
const PUBLISHES = [
  ...TABLE.flatMap(({ module, ...row }) =>
    SCOPES.flatMap((scope) => (row[scope]?.publish ?? []).map((topic) => ({ module, scope, topic }))),
  ),
  { module: 'somebody', scope: 'local' as const, topic: 'globalpubsub:config' as const },
];

let cluster: TestCluster;
let tenant: Tenant;
const connections = new Map<string, PubSub>();

beforeAll(async () => {
  cluster = await startCluster();
  tenant = await createTenant(cluster, 'esn');
}, 90_000);

afterAll(async () => {
  await Promise.all([...connections.values()].map((pubsub) => pubsub.close()));
  await cluster?.[Symbol.asyncDispose]();
});

/** The SDK as a module has it. */
function as(module: string): PubSub {
  const pubsub = connections.get(module) ?? tenant.pubsub(module);
  connections.set(module, pubsub);
  return pubsub;
}

describe('the catalogue', () => {
  it('names the publishers and subscribers of the table, and where they are', () => {
    // Ours, not the document's.
    const { 'usernotification:updated': _, ...documented } = Object.fromEntries(
      [...CATALOGUE].filter(([, { source }]) => source === 'esn'),
    );
    for (const [name, { publishers, subscribers, scopes }] of Object.entries(documented)) {
      expect([name, [...publishers].sort()]).toEqual([name, modulesOf(name, 'publish').sort()]);
      expect([name, [...subscribers].sort()]).toEqual([name, modulesOf(name, 'subscribe').sort()]);
      const used = SCOPES.filter(
        (scope) =>
          modulesOf(name, 'publish', [scope]).length + modulesOf(name, 'subscribe', [scope]).length > 0,
      );
      if (used.length > 0) expect([name, scopes]).toEqual([name, used]);
    }
    for (const { topic } of PUBLISHES) expect(Object.keys(documented)).toContain(topic);
  });

  it('has somebody who publishes whatever a module subscribes to', () => {
    const published = PUBLISHES.map(({ scope, topic }) => `${scope} ${topic}`);
    for (const row of TABLE)
      for (const scope of SCOPES)
        for (const topic of row[scope]?.subscribe ?? []) expect(published).toContain(`${scope} ${topic}`);
  });
});

describe('a row of the table', () => {
  it.each(PUBLISHES)('$module publishes $topic on $scope, and only there it is heard', async (row) => {
    const { module, scope, topic } = row;
    const name: string = topic;
    const here = as(module)[scope].topic(name);
    const there = as(module)[other(scope)].topic(name);
    const heard = new Map<string, Collected<string>>();
    const subscriptions: PubSubSubscription[] = [];
    const listen = (who: string, on: Scope, durable?: string) => {
      const ids = new Collected<string>();
      heard.set(`${who} on ${on}${durable === undefined ? '' : ', durable'}`, ids);
      const options = durable === undefined ? {} : { durable };
      subscriptions.push(
        as(who)
          [on].topic(name)
          .subscribe((_, { event }) => ids.add(event.id), options),
      );
    };
    listen('witness', scope);
    listen('witness', other(scope));
    for (const subscriber of modulesOf(topic, 'subscribe', [scope])) {
      listen(subscriber, scope);
      listen(subscriber, scope, `${subscriber} after ${module}`);
    }
    await Promise.all(subscriptions.map(({ ready }) => ready));

    const { id } = await here.publish(EXAMPLES[topic]);
    // One on the other scope and one behind the first: whoever has the last has everything before it.
    const elsewhere = await there.publish(EXAMPLES[topic]);
    const last = await here.publish(EXAMPLES[topic]);
    for (const [who, ids] of heard) {
      const expected = who === `witness on ${other(scope)}` ? [elsewhere.id] : [id, last.id];
      await ids.until((items) => items.includes(expected.at(-1)!));
      // A consumer that is new also has what earlier rows left on the topic, of other modules.
      const mine = ids.items.filter((one) => [id, elsewhere.id, last.id].includes(one));
      expect([who, mine]).toEqual([who, expected]);
    }
    await Promise.all(subscriptions.map((subscription) => subscription.close()));
  });

  it('is nothing that an end user hears, where its topic is local only', async () => {
    await using user = await tenant.socket('ann');
    for (const { topic } of PUBLISHES.filter(
      ({ topic }) => !CATALOGUE.get(topic)?.scopes.includes('global'),
    )) {
      user.send({ action: 'subscribe', topic, ref: topic });
      expect(await user.next('error', topic)).toMatchObject({ code: 'forbidden' });
    }
  });
});

describe('on both scopes', () => {
  const activity = EXAMPLES['message:activity'];
  const hook = (topic: string, message: object, headers: Record<string, string> = {}) =>
    tenant.service('POST', '/v1/hook', { topic, action: 'publish', message, scope: 'both' }, headers);

  /** What a durable local service hears of a topic from now on. */
  async function service(topic: string, durable: string) {
    const heard = new Collected<{ id: string; message: unknown }>();
    const subscription = as('timeline')
      .local.topic(topic)
      .subscribe(
        (message, { event }) => {
          heard.add({ id: event.id, message });
        },
        { durable },
      );
    await subscription.ready;
    const of = async (id: string) => {
      await heard.until((items) => items.some((item) => item.id === id));
      return heard.items.filter((item) => item.id === id);
    };
    return { of, [Symbol.asyncDispose]: () => subscription.close() };
  }

  it('the SDK forwards a message: a browser hears the global one, a durable service the local one', async () => {
    await using browser = await tenant.socket('ann');
    await browser.subscribe('message:stored');
    await using local = await service('message:stored', 'forwarded');
    const messages = as('messages');
    const [one, two] = await messages.local.topic('message:stored').forward(messages.global, { _id: 'm-1' });
    expect(one.id).toBe(two.id);
    expect(await browser.find(({ id }) => id === two.id)).toMatchObject({ message: { _id: 'm-1' } });
    expect(await local.of(one.id)).toEqual([{ id: one.id, message: { _id: 'm-1' } }]);
  });

  it('the hook publishes an activity with one call and one id', async () => {
    await using browser = await tenant.socket('ann');
    await browser.subscribe('message:activity');
    await using local = await service('message:activity', 'hooked');
    const { status, headers, body } = await hook('message:activity', activity);
    expect([status, body]).toEqual([
      200,
      { topic: 'message:activity', action: 'publish', message: activity, scope: 'both' },
    ]);
    const id = headers.get('posthorn-event-id')!;
    const position = headers.get('posthorn-position');
    expect(await browser.find((frame) => frame.id === id)).toMatchObject({ message: activity, position });
    expect(await local.of(id)).toEqual([{ id, message: activity }]);
  });

  it('the same key is one event, on both', async () => {
    await using browser = await tenant.socket('ann');
    await browser.subscribe('message:activity');
    await using local = await service('message:activity', 'repeated');
    const key = { 'idempotency-key': 'activity 7' };
    const first = await hook('message:activity', activity, key);
    const again = await hook('message:activity', activity, key);
    for (const header of ['posthorn-event-id', 'posthorn-position'])
      expect(again.headers.get(header)).toBe(first.headers.get(header));
    const other = await hook('message:activity', activity, { 'idempotency-key': 'activity 8' });
    const [id, last] = [first, other].map(({ headers }) => headers.get('posthorn-event-id')!);
    expect(last).not.toBe(id);
    await browser.find((frame) => frame.id === last);
    expect(browser.frames.filter((frame) => frame.id === id)).toHaveLength(1);
    await local.of(last!);
    expect(await local.of(id!)).toHaveLength(1);
    const conflict = await hook('message:activity', { ...activity, verb: 'like' }, key);
    expect([conflict.status, conflict.body.code]).toEqual([409, 'idempotency_conflict']);
  });

  it('says which one is missing, and the same key stores only that', async () => {
    await using browser = await tenant.socket('ann');
    await browser.subscribe('message:stored');
    await using local = await service('message:stored', 'completed');
    const message = { _id: 'half', text: 'x'.repeat(200) };
    const key = { 'idempotency-key': 'half 1' };
    const nc = await connect({ servers: cluster.natsUrl });
    const { streams } = await jetstreamManager(nc);
    await streams.update(STREAMS.global.name, { max_msg_size: 200 });
    try {
      const refused = await hook('message:stored', message, key);
      expect([refused.status, refused.body]).toEqual([
        413,
        expect.objectContaining({
          code: 'payload_too_large',
          detail: expect.stringMatching(/^Published on local, missing on global: .* safe to repeat$/),
        }),
      ]);
    } finally {
      await streams.update(STREAMS.global.name, { max_msg_size: -1 });
      await nc.close();
    }
    const { status, headers } = await hook('message:stored', message, key);
    expect(status).toBe(200);
    const id = headers.get('posthorn-event-id')!;
    await browser.find((frame) => frame.id === id);
    const after = await hook('message:stored', { _id: 'after' });
    await local.of(after.headers.get('posthorn-event-id')!);
    expect(await local.of(id)).toEqual([{ id, message }]);
  });

  it('is for services, and for topics that keep their events', async () => {
    const user = await tenant.as('ann');
    const refused = await user('POST', '/v1/hook', {
      topic: 'a',
      action: 'publish',
      message: {},
      scope: 'both',
    });
    expect([refused.status, refused.body.code]).toEqual([403, 'forbidden']);
    await tenant.service('POST', '/v1/topic', { topic: 'cursor/esn', durable: false });
    await using browser = await tenant.socket('ann');
    await browser.subscribe('cursor/esn');
    const ephemeral = await hook('cursor/esn', { x: 1 });
    expect([ephemeral.status, ephemeral.body.code]).toEqual([422, 'request_invalid']);
    await browser.settle();
    expect(browser.frames.filter(({ action }) => action === 'message')).toEqual([]);
  });
});
