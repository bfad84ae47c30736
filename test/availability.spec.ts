import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type AppName, startCluster, type TestCluster } from '@posthorn/testing';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

const ALL: AppName[] = ['auth', 'registry', 'notifier', 'gateway'];

let cluster: TestCluster;
let tenant: Tenant;
beforeAll(async () => {
  cluster = await startCluster();
  tenant = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** The checks of `/health/ready`. */
async function readiness(name: AppName) {
  const response = await fetch(`${cluster.app(name).url}/health/ready`);
  const body = (await response.json()) as { checks: Record<string, { up: boolean; detail?: string }> };
  return { status: response.status, checks: body.checks };
}

/** How often the app has logged a message since the offset. */
function logged(name: AppName, message: RegExp, from: number): number {
  const lines = readFileSync(cluster.app(name).logFile, 'utf8').slice(from).split('\n').filter(Boolean);
  return lines.filter((line) => message.test(JSON.parse(line).msg)).length;
}

const logSize = (name: AppName) => readFileSync(cluster.app(name).logFile, 'utf8').length;

describe('at the start', () => {
  it('every app waits for NATS, says so once and in /health/ready, and comes up when it does', async () => {
    await Promise.all(ALL.map((name) => cluster.app(name).stop()));
    await cluster.nats.kill();
    const from = Object.fromEntries(ALL.map((name) => [name, logSize(name)]));
    for (const name of ALL) cluster.app(name).spawn();
    for (const name of ALL) {
      const { checks } = await eventually(async () => readiness(name).catch(() => undefined));
      expect(checks.nats).toMatchObject({ up: false });
      await eventually(async () => logged(name, /waiting for nats/i, from[name]!) || undefined);
    }
    await cluster.nats.start();
    await Promise.all(ALL.map((name) => cluster.app(name).ready()));
    for (const name of ALL) expect(logged(name, /waiting for nats/i, from[name]!)).toBe(1);
  }, 120_000);

  it('the apps with a database wait for it, say so once, and come up when it does', async () => {
    const apps: AppName[] = ['auth', 'registry', 'notifier'];
    await Promise.all(apps.map((name) => cluster.app(name).stop()));
    await cluster.postgres.kill();
    const from = Object.fromEntries(apps.map((name) => [name, logSize(name)]));
    for (const name of apps) cluster.app(name).spawn();
    for (const name of apps) {
      await eventually(
        async () => logged(name, /waiting for .*(database|postgres)/i, from[name]!) || undefined,
      );
      const { status, checks } = await readiness(name);
      expect(status).toBe(503);
      expect(Object.entries(checks).find(([check]) => /database|postgres/i.test(check))?.[1].up).toBe(false);
    }
    await cluster.postgres.start();
    await Promise.all(apps.map((name) => cluster.app(name).ready()));
    for (const name of apps) expect(logged(name, /waiting for .*(database|postgres)/i, from[name]!)).toBe(1);
  }, 120_000);
});

describe('later', () => {
  it('NATS away: publishes are unavailable on REST and socket, and none of them is stored', async () => {
    await using ann = await tenant.socket('ann');
    await ann.subscribe('a');
    await cluster.nats.kill();
    await cluster.app('gateway').unready();
    for (let n = 0; n < 5; n++) {
      const answer = await tenant.service('POST', '/v1/hook', {
        topic: 'a',
        action: 'publish',
        message: { n },
      });
      expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 503, code: 'unavailable' });
      ann.send({ action: 'publish', topic: 'a', message: { n }, ref: `p${n}` });
      expect(await ann.next('error', `p${n}`)).toMatchObject({ code: 'unavailable' });
    }
    expect((await tenant.service('GET', '/v1/sign')).body.code).toBe('unavailable');
    await cluster.nats.start();
    await cluster.app('gateway').ready();
    const body = { topic: 'a', action: 'publish', message: { n: 'after' } };
    await eventually(
      async () => (await tenant.service('POST', '/v1/hook', body)).status === 200 || undefined,
    );
    await ann.find(
      ({ action, message }) => action === 'message' && (message as { n: unknown }).n === 'after',
    );
    expect(ann.frames.filter(({ action }) => action === 'message')).toHaveLength(1);
  }, 60_000);

  it('the registry or the notifier away: what needs it is unavailable, publishing goes on', async () => {
    await cluster.app('registry').kill();
    await cluster.app('notifier').kill();
    expect((await tenant.service('POST', '/v1/topic', { topic: 'new' })).body.code).toBe('unavailable');
    expect((await (await tenant.as('ann'))('GET', '/v1/notifications')).body.code).toBe('unavailable');
    const body = { topic: 'never/seen', action: 'publish', message: {} };
    expect((await tenant.service('POST', '/v1/hook', body)).status).toBe(200);
    await Promise.all([cluster.app('registry').start(), cluster.app('notifier').start()]);
    expect((await tenant.service('POST', '/v1/topic', { topic: 'new' })).status).toBe(201);
  }, 60_000);

  it('PostgreSQL away: events are held, none becomes a dead letter, all arrive when it is back', async () => {
    const pubsub = tenant.pubsub();
    await pubsub.ready;
    await cluster.postgres.kill();
    const communities = Array.from({ length: 20 }, (_, n) => `held-${n}`);
    const topic = pubsub.local.topic('community:membership:invite');
    await Promise.all(
      communities.map((community) => topic.publish({ author: 'a', target: 'dora', community })),
    );
    const dora = await tenant.as('dora');
    expect((await dora('GET', '/v1/notifications')).body.code).toBe('unavailable');
    await cluster.postgres.start();
    const items = await eventually(async () => {
      const found = await wholeInbox(dora).catch(() => []);
      return found.length >= communities.length ? found : undefined;
    }, 60_000);
    expect(items.map(({ complement }) => complement.id).sort()).toEqual([...communities].sort());
    await pubsub.close();
  }, 90_000);
});
