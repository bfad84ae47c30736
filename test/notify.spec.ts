/** Notifications of Tryton (docs/protocols/tryton.md, "Server SDK"), and what publishers of Inthe.AM may say. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { busOf, type PubSub } from '@posthorn/bus';
import { EXAMPLES, ownTopic, type UserTopicName } from '@posthorn/contracts';
import { rawPublish, startCluster, type TestCluster } from '@posthorn/testing';
import { Poller } from './support/poller.js';
import { createTenant, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let acme: Tenant;
let pubsub: PubSub;

beforeAll(async () => {
  cluster = await startCluster({
    replicas: { gateway: 2, notifier: 0 },
    env: { BUS_TIMEOUT: '5s', PUBLISH_RATE: '1', PUBLISH_BURST: '5' },
  });
  acme = await createTenant(cluster, 'acme');
  pubsub = acme.pubsub('trytond');
}, 90_000);

afterAll(async () => {
  await pubsub?.close();
  await cluster?.[Symbol.asyncDispose]();
});

const poller = async (sub: string, channels: readonly string[] = []) =>
  new Poller({ urls: cluster.gatewayUrls, database: 'acme', token: await acme.token(sub), channels });
const notification = (title: string, more: object = {}) => ({
  type: 'notification',
  kind: 'notification',
  title,
  body: null,
  priority: 1,
  ...more,
});

describe('POST /v1/notify', () => {
  it('reaches the polls and the sockets of a user', async () => {
    const polls = await poller('7');
    await using socket = await acme.socket('7');
    await socket.subscribe('user:7');
    const waiting = polls.next();
    const { status, body } = await acme.service('POST', '/v1/notify', {
      title: 'Report ready',
      body: 'Two lines,\n<b>no markup</b>',
      priority: 3,
      user: 7,
    });
    expect({ status, body }).toEqual({
      status: 202,
      body: { id: expect.any(String), position: expect.any(String) },
    });
    const said = notification('Report ready', { body: 'Two lines,\n<b>no markup</b>', priority: 3 });
    expect(await waiting).toEqual({ ...said, message_id: expect.any(String) });
    expect(await socket.next('message')).toMatchObject({
      topic: 'user:7',
      id: body.id,
      position: body.position,
      message: said,
    });
  });

  it('goes to the client, else the user, else the calling client, else the current user', async () => {
    const ann = await acme.as('ann');
    const channels = ['client:first', 'client:second'];
    const polls = await poller('ann', channels);
    const calls: [object, Record<string, string>?][] = [
      [{ title: '1', client: 'first', user: 'ann' }, { 'posthorn-client': 'second' }],
      [{ title: '2', user: 'ann' }, { 'posthorn-client': 'second' }],
      [{ title: '3', user: null, client: null }, { 'posthorn-client': 'second' }],
      [{ title: '4' }],
    ];
    for (const [body, headers] of calls)
      expect(await ann('POST', '/v1/notify', body, headers)).toMatchObject({ status: 202 });
    const got = [];
    for (const _ of calls) {
      const { body } = await polls.poll();
      got.push([body.channel, body.message.title]);
    }
    expect(got).toEqual([
      ['client:first', '1'],
      ['user:ann', '2'],
      ['client:second', '3'],
      ['user:ann', '4'],
    ]);
  });

  it('lets users notify themselves only, and nobody more than its token does', async () => {
    const bob = await acme.as('bob');
    for (const body of [{ user: 'ann' }, { user: 'ann', client: 'first' }])
      expect(await bob('POST', '/v1/notify', { title: 'x', ...body })).toMatchObject({
        status: 403,
        body: { code: 'forbidden' },
      });
    const narrow = { permissions: { publish: ['news'] } };
    expect(await (await acme.as('bob', narrow))('POST', '/v1/notify', { title: 'x' })).toMatchObject({
      status: 403,
    });
    const service = await acme.as('svc', { role: 'service', ...narrow });
    expect(await service('POST', '/v1/notify', { title: 'x', user: 'bob' })).toMatchObject({ status: 403 });
    const nobody = await acme.as(undefined as never, { role: 'service' });
    expect(await nobody('POST', '/v1/notify', { title: 'x' })).toMatchObject({
      status: 422,
      body: { errors: [{ path: '/user' }] },
    });
  });

  it('refuses what is no notification, with a pointer for each member', async () => {
    const wrong = { title: 'a\nb', body: {}, priority: 4, user: {}, client: 1.5 };
    expect(await acme.service('POST', '/v1/notify', wrong)).toMatchObject({
      status: 422,
      headers: expect.anything(),
      body: {
        code: 'request_invalid',
        errors: ['/title', '/body', '/priority', '/user', '/client'].map((path) => ({ path })),
      },
    });
    for (const body of [undefined, '[]', 'null', 'text', '{"title":'])
      expect(await acme.service('POST', '/v1/notify', body)).toMatchObject({ status: 422 });
  });

  it('stores one notification for one key, and none of another under it', async () => {
    const notify = (title: string) =>
      acme.service('POST', '/v1/notify', { title, user: 'carl' }, { 'idempotency-key': 'report 5' });
    const first = await notify('Ready');
    expect((await notify('Ready')).body).toEqual(first.body);
    expect(await notify('Other')).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } });
    const polls = await poller('carl');
    expect(await polls.next()).toMatchObject({ title: 'Ready' });
    expect(await polls.next()).toBeNull();
  });

  it("counts among a user's publishes", async () => {
    const dora = await acme.as('dora');
    const calls = await Promise.all([
      ...Array.from({ length: 4 }, () => dora('POST', '/v1/notify', { title: 'x' })),
      ...Array.from({ length: 4 }, () =>
        dora('POST', '/v1/hook', { topic: 'a/b', action: 'publish', message: {} }),
      ),
    ]);
    const refused = calls.filter(({ status }) => status === 429);
    expect(refused).toHaveLength(3);
    expect(refused[0]!.headers.get('retry-after')).not.toBeNull();
  });
});

describe('the SDK and the gateway', () => {
  it('go on from each other’s last message', async () => {
    const bus = busOf(pubsub);
    const channels = ['user:erin', 'news'];
    const polls = await poller('erin', ['news']);
    for (let n = 0; n < 6; n++) await bus.publish(channels[n % 2]!, { n });
    let last: string | null = null;
    for (let n = 0; n < 6; n++) {
      if (n % 3 === 0) {
        const { message } = await bus.subscribe('acme', channels, last, { timeout: 5_000 });
        expect(message).toMatchObject({ n });
        last = message!.message_id!;
      } else {
        polls.last = last;
        expect(await polls.next()).toMatchObject({ n });
        last = polls.last;
      }
    }
    polls.last = last;
    const waiting = polls.next();
    await bus.notify('Done', null, 2, 'erin');
    expect(await waiting).toMatchObject(notification('Done', { priority: 2 }));
  });
});

describe('a topic of a user', () => {
  const names = Object.keys(EXAMPLES).filter(
    (name) => 'username' in EXAMPLES[name as UserTopicName],
  ) as UserTopicName[];

  it('takes no message of another user, on any way in', async () => {
    expect(names).toHaveLength(7);
    const errors = [{ path: '/username', message: expect.any(String) }];
    for (const name of names) {
      const topic = `${name}.alice`;
      const message = EXAMPLES[name];
      const wrong = { ...message, username: 'bob' };
      const hook = (payload: object) =>
        acme.service('POST', '/v1/hook', { topic, action: 'publish', message: payload });
      expect(await hook(message)).toMatchObject({ status: 200 });
      expect(await hook(wrong)).toMatchObject({ status: 422, body: { code: 'payload_invalid', errors } });
      await expect(pubsub.global.topic(topic as string).publish(wrong)).rejects.toMatchObject({
        code: 'payload_invalid',
        errors,
      });
      await using socket = await acme.socket('svc', { role: 'service' });
      socket.send({ action: 'publish', topic, message: wrong, ref: name });
      expect(await socket.next('error', name)).toMatchObject({ code: 'payload_invalid', errors });
    }
  });

  it('takes none from a foreign publisher on NATS either, and goes on with what is right', async () => {
    const dropped = async () => {
      const text = await (await fetch(`${cluster.gatewayUrls[0]}/metrics`)).text();
      return Number(/^posthorn_dropped_total\{[^}]*reason="schema"[^}]*\} (\d+)/m.exec(text)?.[1]);
    };
    await using socket = await acme.socket('svc', { role: 'service' });
    for (const name of names) await socket.subscribe(`${name}.carol`);
    const before = await dropped();
    for (const name of names) {
      const subject = `ph.acme.global.${ownTopic(name, 'carol').path}`;
      for (const username of ['bob', 'Carol', '', null, ['carol'], undefined, 'carol']) {
        const message = JSON.stringify({ ...EXAMPLES[name], username });
        await rawPublish(cluster.nats, subject, 'NATS/1.0\r\n\r\n', message);
      }
    }
    const messages = await socket.count('message', names.length);
    await socket.settle();
    expect(messages.map(({ topic }) => topic).sort()).toEqual(names.map((name) => `${name}.carol`).sort());
    for (const { message } of messages) expect(message).toMatchObject({ username: 'carol' });
    expect((await dropped()) - before).toBe(6 * names.length);
  });

  it('takes any message of Trello, which knows no user', async () => {
    const message = { ...EXAMPLES.incoming_trello_change, username: 'somebody' };
    const hook = { topic: 'incoming_trello_change.alice', action: 'publish', message };
    expect(await acme.service('POST', '/v1/hook', hook)).toMatchObject({ status: 200 });
  });
});
