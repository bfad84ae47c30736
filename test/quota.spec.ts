import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import pg from 'pg';
import { type Answer, CourierSocket, call } from './support/courier-client.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

const PUBLISHES = 20;
const BYTES = 200_000;

let cluster: TestCluster;
let database: pg.Client;
let tenants = 0;

beforeAll(async () => {
  await awayFromMidnight(180_000);
  cluster = await startCluster({
    replicas: { gateway: 2 },
    env: { PUBLISHES_PER_DAY: String(PUBLISHES), STORED_BYTES_PER_DAY: String(BYTES) },
  });
  database = new pg.Client(cluster.databaseUrl);
  await database.connect();
}, 300_000);
afterAll(async () => {
  await database?.end();
  await cluster?.[Symbol.asyncDispose]();
});

/** Resolves once the day (UTC) still lasts so many milliseconds: a new one is a new quota. */
async function awayFromMidnight(ms: number): Promise<void> {
  const left = 86_400_000 - (Date.now() % 86_400_000);
  if (left < ms) await new Promise((resolve) => setTimeout(resolve, left));
}

/** Somebody of an audience that has published nothing yet. */
async function person(sub = 'ann') {
  const tenant = await createTenant(cluster, `tenant-${tenants++}`);
  const token = await tenant.token(sub);
  const publish = (gateway = 0, message: object = {}, headers: Record<string, string> = {}) =>
    call(
      cluster.gatewayUrls[gateway]!,
      token,
      'POST',
      '/v1/hook',
      { topic: 'a', action: 'publish', message },
      headers,
    );
  return { tenant, token, publish };
}

type Publish = Awaited<ReturnType<typeof person>>['publish'];

/** What PostgreSQL has of an audience's day. */
async function reported({ audience }: Tenant): Promise<{ publishes: number; bytes: number }> {
  const { rows } = await database.query(
    `SELECT coalesce(sum(publishes), 0)::int AS publishes, coalesce(sum(bytes), 0)::int AS bytes
     FROM registry.usage JOIN registry.audience ON audience.id = audience_id WHERE name = $1`,
    [audience],
  );
  return rows[0];
}

/** Resolves once the gateways have told of so many publishes, and so know the quota. */
function known(tenant: Tenant, publishes: number): Promise<true> {
  return eventually(async () => (await reported(tenant)).publishes === publishes || undefined);
}

/** Publishes until it is refused; how many were taken, and the refusal. */
async function useUp(publish: () => Promise<Answer>): Promise<{ taken: number; refusal: Answer }> {
  for (let taken = 0; ; taken++) {
    const answer = await publish();
    if (answer.status !== 200) return { taken, refusal: answer };
    if (taken > 10_000) throw new Error('never refused');
  }
}

/** An audience whose quota of publishes is used up, and known to be by the first gateway. */
async function usedUp() {
  const someone = await person();
  await someone.publish();
  await known(someone.tenant, 1);
  await useUp(() => someone.publish());
  await known(someone.tenant, PUBLISHES);
  return someone;
}

async function problems(code: string, gateway = 0): Promise<number> {
  const text = await (await fetch(`${cluster.gatewayUrls[gateway]}/metrics`)).text();
  const line = text.split('\n').find((one) => one.startsWith(`posthorn_problems_total{code="${code}"`));
  return Number(line?.split(' ').at(-1));
}

/** Publishes until the code of a refusal comes, which a gateway that has just heard of it gives within seconds. */
async function refusedBy(publish: Publish, gateway: number): Promise<string> {
  return eventually(async () => (await publish(gateway)).body.code, 5_000);
}

describe('the quota of publishes', () => {
  it('refuses what is beyond it until midnight UTC, and counts the refusal', async () => {
    const { tenant, publish } = await person();
    await publish();
    await known(tenant, 1);
    const before = await problems('publish_quota');
    const { taken, refusal } = await useUp(publish);
    expect(taken).toBe(PUBLISHES - 1);
    expect(refusal).toMatchObject({
      status: 429,
      body: {
        type: 'urn:posthorn:problem:publish_quota',
        code: 'publish_quota',
        status: 429,
        detail: expect.stringMatching(/^The audience may publish 20 events a day.*T00:00:00.000Z$/),
      },
    });
    const untilMidnight = 86_400 - ((Date.now() / 1_000) % 86_400);
    expect(Math.abs(Number(refusal.headers.get('retry-after')) - untilMidnight)).toBeLessThan(5);
    expect(await problems('publish_quota')).toBe(before + 1);
  });

  it('refuses on the socket too, which stays open, and counts that', async () => {
    const { token } = await usedUp();
    await using socket = await CourierSocket.open(cluster.gatewayUrls[0]!, token);
    const before = await problems('publish_quota');
    socket.send({ action: 'publish', topic: 'a', message: {}, ref: 'one' });
    socket.send({ action: 'broadcast', message: {}, ref: 'two' });
    expect(await socket.next('error', 'one')).toMatchObject({ code: 'publish_quota' });
    expect(await socket.next('error', 'two')).toMatchObject({ code: 'publish_quota' });
    await socket.settle();
    expect(socket.closed).toBeUndefined();
    expect(await problems('publish_quota')).toBe(before + 2);
  });

  it('counts what comes in on sockets', async () => {
    const { tenant, token } = await person();
    await using socket = await CourierSocket.open(cluster.gatewayUrls[0]!, token);
    socket.send({ action: 'publish', topic: 'a', message: {} });
    socket.send({ action: 'broadcast', message: {} });
    await known(tenant, 2);
    for (let i = 0; i < PUBLISHES; i++) {
      socket.send({ action: 'publish', topic: 'a', message: {}, ref: `${i}` });
    }
    await socket.count('published', PUBLISHES - 2);
    const refused = await socket.count('error', 2);
    expect(refused.map(({ code }) => code)).toEqual(['publish_quota', 'publish_quota']);
    await known(tenant, PUBLISHES);
  });

  it('is one for all gateways, which agree within seconds', async () => {
    const { publish } = await usedUp();
    const heard = await refusedBy(publish, 1);
    expect(heard).toBe('publish_quota');
  });

  it('leaves other audiences alone', async () => {
    await usedUp();
    const other = await person();
    expect((await other.publish()).status).toBe(200);
  });

  it('leaves the services of the platform alone that publish over NATS', async () => {
    const { tenant } = await usedUp();
    const pubsub = tenant.pubsub();
    try {
      await expect(pubsub.global.topic('a').publish({})).resolves.toMatchObject({ duplicate: false });
    } finally {
      await pubsub.close();
    }
  });

  it('counts a repeated publish once, and a refused one not at all', async () => {
    const { tenant, publish } = await person();
    for (let i = 0; i < 5; i++) {
      expect((await publish(i % 2, {}, { 'idempotency-key': 'same' })).status).toBe(200);
    }
    expect((await publish(0, { large: 'x'.repeat(100_000) })).body.code).toBe('payload_too_large');
    expect((await publish(0, {}, { 'idempotency-key': '' })).status).not.toBe(200);
    await publish(0);
    await known(tenant, 2);
  });
});

describe('the quota of stored bytes', () => {
  it('refuses with a code of its own, on REST and on the socket, and counts both', async () => {
    const { tenant, token, publish } = await person();
    const large = { text: 'x'.repeat(60_000) };
    await publish();
    await known(tenant, 1);
    const before = await problems('storage_quota');
    const { taken, refusal } = await useUp(() => publish(0, large));
    expect(taken).toBe(Math.ceil(BYTES / 61_000));
    expect(refusal).toMatchObject({ status: 429, body: { code: 'storage_quota' } });
    expect(Number(refusal.headers.get('retry-after'))).toBeGreaterThan(0);
    await using socket = await CourierSocket.open(cluster.gatewayUrls[0]!, token);
    socket.send({ action: 'publish', topic: 'a', message: {}, ref: 'one' });
    expect(await socket.next('error', 'one')).toMatchObject({ code: 'storage_quota' });
    expect(await problems('storage_quota')).toBe(before + 2);
  });

  it('counts what an event takes in the stream, its headers too', async () => {
    const { tenant, publish } = await person();
    await publish();
    await known(tenant, 1);
    const { bytes } = await reported(tenant);
    expect(bytes).toBeGreaterThan(200);
    expect(bytes).toBeLessThan(600);
  });
});

describe('a day that processes do not survive', () => {
  it('goes on where the registry is restarted', async () => {
    const { publish } = await usedUp();
    await cluster.app('registry').restart();
    expect((await publish(0)).body.code).toBe('publish_quota');
    expect(await refusedBy(publish, 1)).toBe('publish_quota');
  }, 60_000);

  it('goes on where a gateway crashes, as far as it was told', async () => {
    const { tenant, publish } = await usedUp();
    const gateway = cluster.app('gateway', 0);
    await gateway.kill();
    await gateway.start();
    expect(await refusedBy(publish, 0)).toBe('publish_quota');
    expect((await reported(tenant)).publishes).toBeGreaterThanOrEqual(PUBLISHES);
  }, 60_000);

  it('loses nothing where a gateway stops in order', async () => {
    const { tenant, publish } = await person();
    for (let i = 0; i < 7; i++) await publish(1);
    await cluster.app('gateway', 1).restart();
    expect((await reported(tenant)).publishes).toBe(7);
  }, 60_000);

  it('takes publishes while the registry is away, and counts them when it is back', async () => {
    const { tenant, publish } = await person();
    await publish();
    await known(tenant, 1);
    await cluster.app('registry').kill();
    for (let i = 0; i < 5; i++) expect((await publish()).status).toBe(200);
    await cluster.app('registry').start();
    await known(tenant, 6);
    // What was known was judged by all along.
    const { taken, refusal } = await useUp(publish);
    expect({ taken, code: refusal.body.code }).toEqual({ taken: PUBLISHES - 6, code: 'publish_quota' });
  }, 60_000);
});
