import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { type Caller, createTenant, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let tenant: Tenant;

beforeAll(async () => {
  // Slow enough for nobody to get a second one back while the test lasts.
  cluster = await startCluster({ env: { PUBLISH_RATE: '1', PUBLISH_BURST: '30', BROADCAST_BURST: '3' } });
  tenant = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

async function statuses(caller: Caller, times: number, body: object): Promise<number[]> {
  const answers = await Promise.all(Array.from({ length: times }, () => caller('POST', '/v1/hook', body)));
  return answers.map(({ status }) => status);
}

describe('publishes over REST', () => {
  const publish = { topic: 'a', action: 'publish', message: {} };
  const broadcast = { action: 'broadcast', message: {} };

  it('are refused where a user sends them faster than a socket may, and nobody else is', async () => {
    const ann = await tenant.as('ann');
    const told = await statuses(ann, 60, publish);
    expect(told.filter((status) => status === 429).length).toBeGreaterThanOrEqual(20);
    expect(told.filter((status) => status === 200).length).toBeGreaterThanOrEqual(30);
    const refused = await eventuallyRefused(ann, publish);
    expect(refused.body).toMatchObject({ code: 'rate_limited', status: 429 });
    expect(Number(refused.headers.get('retry-after'))).toBe(1);
    expect(await statuses(await tenant.as('bob'), 1, publish)).toEqual([200]);
  });

  it('are not limited for a service', async () => {
    expect(new Set(await statuses(tenant.service, 100, publish))).toEqual(new Set([200]));
  });

  it('have a limit of their own where they are broadcasts', async () => {
    const told = await statuses(await tenant.as('carol'), 20, broadcast);
    expect(told.filter((status) => status === 200).length).toBeLessThan(10);
    expect(told).toContain(429);
    expect(await statuses(await tenant.as('carol'), 1, publish)).toEqual([200]);
  });

  async function eventuallyRefused(caller: Caller, body: object) {
    for (;;) {
      const answer = await caller('POST', '/v1/hook', body);
      if (answer.status !== 200) return answer;
    }
  }
});
