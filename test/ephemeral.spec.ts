import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket } from './support/courier-client.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let tenant: Tenant;

beforeAll(async () => {
  cluster = await startCluster({ replicas: { gateway: 2 } });
  tenant = await createTenant(cluster, 'acme');
  const topic = { topic: 'cursor/moves', durable: false, schema: { type: 'object', required: ['x'] } };
  expect((await tenant.service('POST', '/v1/topic', topic)).status).toBe(201);
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const move = (x: unknown) => ({ topic: 'cursor/moves', action: 'publish', message: { x } });

describe('an ephemeral topic', () => {
  it('reaches sockets of every gateway, in the order of its publisher, and has no positions', async () => {
    await using ann = await tenant.socket('ann');
    await using bob = await CourierSocket.open(cluster.gatewayUrls[1]!, await tenant.token('bob'));
    for (const socket of [ann, bob]) {
      expect(await socket.subscribe('cursor/moves')).not.toHaveProperty('position');
    }
    for (let x = 0; x < 50; x++) ann.send({ ...move(x), ref: `move-${x}` });
    expect(await ann.next('published', 'move-49')).not.toHaveProperty('position');
    for (const socket of [ann, bob]) {
      const messages = await socket.count('message', 50);
      expect(messages.map(({ message }) => (message as { x: number }).x)).toEqual(
        Array.from({ length: 50 }, (_, x) => x),
      );
      for (const message of messages) expect(message).not.toHaveProperty('position');
    }
  });

  it('is published over REST and by services, and heard by them', async () => {
    await using ann = await tenant.socket('ann');
    await ann.subscribe('cursor/moves');
    const pubsub = tenant.pubsub();
    const heard: unknown[] = [];
    await pubsub.global.topic('cursor/moves').subscribe((payload) => heard.push(payload)).ready;
    const answer = await tenant.service('POST', '/v1/hook', move(1));
    expect(answer.status).toBe(200);
    expect(answer.headers.get('posthorn-position')).toBeNull();
    expect(answer.headers.get('posthorn-event-id')).toEqual(expect.any(String));
    await pubsub.global.topic('cursor/moves').publish({ x: 2 });
    await ann.count('message', 2);
    expect(await eventually(async () => (heard.length === 2 ? heard : undefined))).toEqual([
      { x: 1 },
      { x: 2 },
    ]);
    await pubsub.close();
  });

  it('takes no local event, and none that breaks its schema', async () => {
    for (const [body, code] of [
      [{ ...move(1), scope: 'local' }, 'request_invalid'],
      [move(undefined), 'payload_invalid'],
    ] as const) {
      const { status, body: problem } = await tenant.service('POST', '/v1/hook', body);
      expect([status, problem.code]).toEqual([422, code]);
    }
  });

  it('is no way around storage: on other topics its subject reaches nobody', async () => {
    await using ann = await tenant.socket('ann');
    await ann.subscribe('prices');
    await ann.subscribe('cursor/moves');
    const nc = await connect({ servers: cluster.natsUrl });
    for (const subject of ['ph-eph.acme.-.prices', 'ph-eph.acme.-.cursor.moves'])
      nc.publish(subject, '{"x":1}');
    await nc.flush();
    await nc.close();
    await ann.count('message', 1);
    await ann.settle();
    expect(ann.frames.filter(({ action }) => action === 'message')).toEqual([
      { action: 'message', topic: 'cursor/moves', id: expect.any(String), message: { x: 1 } },
    ]);
  });
});
