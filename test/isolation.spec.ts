import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect, type NatsConnection, headers as newHeaders } from '@nats-io/transport-node';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

let cluster: TestCluster;
let nc: NatsConnection;
let acme: Tenant;
let umbrella: Tenant;
beforeAll(async () => {
  cluster = await startCluster();
  nc = await connect({ servers: cluster.natsUrl });
  acme = await createTenant(cluster, 'acme');
  umbrella = await createTenant(cluster, 'acme.corp');
}, 90_000);
afterAll(async () => {
  await nc?.close();
  await cluster?.[Symbol.asyncDispose]();
});

/** A counter of the gateway, by name and labels. */
async function metric(pattern: RegExp): Promise<number> {
  const text = await (await fetch(`${cluster.gatewayUrls[0]}/metrics`)).text();
  const line = text.split('\n').find((candidate) => pattern.test(candidate));
  return Number(line?.split(' ').at(-1) ?? 0);
}

describe('two audiences', () => {
  it('with the same idempotency key, topics, users and events: nothing crosses', async () => {
    await using ours = await acme.socket('bob');
    await using theirs = await umbrella.socket('bob');
    for (const socket of [ours, theirs]) {
      await socket.subscribe('system/events');
      await socket.subscribe('usernotification:created');
    }
    const invite = (n: number) => ({
      topic: 'community:membership:invite',
      action: 'publish',
      message: { author: 'alice', target: 'bob', community: `chess-${n}` },
    });
    const event = (from: string) => ({ topic: 'system/events', action: 'publish', message: { from } });
    const key = { 'idempotency-key': 'the-same' };
    const positions = [];
    for (const [tenant, from] of [
      [acme, 'acme'],
      [umbrella, 'umbrella'],
    ] as const) {
      const answer = await tenant.service('POST', '/v1/hook', event(from), key);
      expect(answer.status).toBe(200);
      positions.push(answer.headers.get('posthorn-position'));
      expect((await tenant.service('POST', '/v1/hook', invite(from.length), key)).status).toBe(200);
    }
    expect(positions[0]).not.toBe(positions[1]);
    for (const [socket, tenant, from] of [
      [ours, acme, 'acme'],
      [theirs, umbrella, 'umbrella'],
    ] as const) {
      await socket.count('message', 2);
      await socket.settle();
      const messages = socket.frames.filter(({ action }) => action === 'message');
      expect(messages).toHaveLength(2);
      expect(messages.find(({ topic }) => topic === 'system/events')?.message).toEqual({ from });
      const inbox = await wholeInbox(await tenant.as('bob'));
      expect(inbox.map(({ complement }) => complement.id)).toEqual([`chess-${from.length}`]);
    }
    for (const tenant of [acme, umbrella]) {
      expect((await tenant.service('POST', '/v1/topic', { topic: 'shared/name' })).status).toBe(201);
      expect((await tenant.service('GET', '/v1/topic')).body).toHaveLength(1);
    }
  });

  it('with names that look like subjects are told apart', async () => {
    const odd = ['*', '>', 'acme.*', 'acme.global.-', 'ünï côdé', 'acme=2Ecorp', '-', 'ACME'];
    const tenants = await Promise.all(odd.map((name) => createTenant(cluster, name)));
    const sockets = await Promise.all(tenants.map((tenant) => tenant.socket('bob')));
    for (const socket of sockets) await socket.subscribe('a');
    for (const [i, tenant] of tenants.entries()) {
      await tenant.service('POST', '/v1/hook', { topic: 'a', action: 'publish', message: { i } });
    }
    for (const [i, socket] of sockets.entries()) {
      await socket.count('message', 1);
      await socket.settle();
      expect(
        socket.frames.filter(({ action }) => action === 'message').map(({ message }) => message),
      ).toEqual([{ i }]);
      await socket[Symbol.asyncDispose]();
    }
  });
});

describe('whoever publishes straight to NATS', () => {
  const forged = (entries: Record<string, string>) => {
    const headers = newHeaders();
    for (const [name, value] of Object.entries(entries)) headers.append(name, value);
    return headers;
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));

  it('cannot reach a socket with a copy that the stream did not make', async () => {
    await using bob = await acme.socket('bob');
    await bob.subscribe('forged');
    const before = await metric(/^posthorn_dropped_total\{.*reason="unsequenced"/);
    const subject = 'ph-live.acme.-.forged';
    const copies = [
      undefined,
      forged({
        'Nats-Stream': 'PH_GLOBAL',
        'Nats-Subject': 'ph.acme.global.-.forged',
        'Nats-Sequence': '0',
        'Nats-Last-Sequence': '0',
      }),
      forged({
        'Nats-Stream': 'PH_GLOBAL',
        'Nats-Subject': 'ph.acme.global.-.forged',
        'Nats-Sequence': '1e9',
        'Nats-Last-Sequence': '0',
      }),
      forged({
        'Nats-Stream': 'PH_OTHER',
        'Nats-Subject': 'ph.acme.global.-.forged',
        'Nats-Sequence': '99',
        'Nats-Last-Sequence': '0',
      }),
      forged({
        'Nats-Stream': 'PH_GLOBAL',
        'Nats-Subject': 'ph.acme.global.-.other',
        'Nats-Sequence': '99',
        'Nats-Last-Sequence': '0',
      }),
    ];
    for (const headers of copies) nc.publish(subject, json({ forged: true }), headers ? { headers } : {});
    await nc.flush();
    await eventually(
      async () =>
        (await metric(/^posthorn_dropped_total\{.*reason="unsequenced"/)) >= before + copies.length ||
        undefined,
    );
    await bob.settle();
    expect(bob.frames.filter(({ action }) => action === 'message')).toEqual([]);
  });

  it("cannot move an event by forged headers: the last value is the server's, the name must fit the subject", async () => {
    await using bob = await acme.socket('bob');
    await using svc = await acme.socket('svc', { role: 'service' });
    await bob.subscribe('honest');
    await svc.subscribe('*');
    const headers = forged({
      'Nats-Sequence': '1',
      'Nats-Stream': 'PH_OTHER',
      'Nats-Subject': 'ph.umbrella.global.-.honest',
      'Nats-Last-Sequence': '999999',
      Topic: 'personal.bob',
      'Posthorn-Kind': 'nonsense',
    });
    nc.publish('ph.acme.global.-.honest', json({ n: 1 }), { headers });
    const [frame] = await bob.count('message', 1);
    expect(frame).toMatchObject({ topic: 'honest', message: { n: 1 } });
    expect(Number(String(frame!.position).split('-')[1])).toBeGreaterThan(1);
    const [seen] = await svc.count('message', 1);
    expect(seen).toMatchObject({ topic: 'honest' });
  });

  it('has payloads that are no JSON object, or no UTF-8, or break the schema, dropped and counted', async () => {
    await acme.service('POST', '/v1/topic', {
      topic: 'strict',
      schema: { type: 'object', required: ['n'] },
    });
    await using bob = await acme.socket('bob');
    for (const topic of ['strict', 'loose']) await bob.subscribe(topic);
    const count = () =>
      Promise.all(
        ['not_json', 'not_object', 'schema'].map((reason) =>
          metric(new RegExp(`^posthorn_dropped_total\\{.*reason="${reason}"`)),
        ),
      );
    const before = await count();
    const loose = 'ph.acme.global.-.loose';
    for (const payload of [
      Buffer.from('{'),
      Buffer.from(''),
      Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]),
    ])
      nc.publish(loose, payload);
    for (const value of [[], 'text', 5, null, true]) nc.publish(loose, json(value));
    nc.publish('ph.acme.global.-.strict', json({ m: 1 }));
    nc.publish('ph.acme.global.-.strict', json({ n: 1 }));
    nc.publish(loose, json({ fine: 'ünï 🎉' }));
    await bob.count('message', 2);
    await bob.settle();
    const messages = bob.frames.filter(({ action }) => action === 'message');
    expect(messages.map(({ message }) => message)).toEqual([{ n: 1 }, { fine: 'ünï 🎉' }]);
    expect((await count()).map((value, i) => value - before[i]!)).toEqual([3, 5, 1]);
  });
});
