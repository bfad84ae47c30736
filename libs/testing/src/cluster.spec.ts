import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from './cluster.js';

describe('a cluster for tests', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await startCluster({ replicas: { gateway: 2 }, links: true });
  }, 60_000);

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const createAudience = async (url: string, token: string): Promise<number> => {
    const response = await fetch(`${url}/v1/audience`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    await response.body?.cancel();
    return response.status;
  };

  it('has gateways that take its tokens, and no others', async () => {
    const [first = '', second = ''] = cluster.gatewayUrls;
    expect(await createAudience(first, await cluster.token())).toBe(201);
    expect(await createAudience(second, await cluster.token())).toBe(200);
    expect(await createAudience(first, 'x.y.z')).toBe(401);
  });

  it('lets an app be killed and brought back at the same address', async () => {
    const gateway = cluster.app('gateway', 1);
    await gateway.kill();
    expect(await gateway.isReady()).toBe(false);
    await gateway.start();
    expect(await gateway.isReady()).toBe(true);
  });

  it('lets one app be cut off from NATS while the others go on', async () => {
    const [cutOff, other] = [cluster.app('gateway', 0), cluster.app('gateway', 1)];
    cluster.natsLink(cutOff).cut();
    await cutOff.unready();
    expect(await other.isReady()).toBe(true);
    cluster.natsLink(cutOff).restore();
    await cutOff.ready();
  });
});
