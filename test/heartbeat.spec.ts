import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket } from './support/courier-client.js';
import { createTenant, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let tenant: Tenant;
beforeAll(async () => {
  cluster = await startCluster({ env: { PING_INTERVAL: '1s' } });
  tenant = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

describe('a socket between pings', () => {
  it('stays open while it answers, and is closed once it left two unanswered', async () => {
    const { key } = (await (await tenant.as('ann'))('GET', '/v1/sign')).body;
    const url = `${cluster.gatewayUrls[0]!.replace('http', 'ws')}/ws?token=${key}`;
    await using lively = new CourierSocket(url);
    await using silent = new CourierSocket(url, [], { autoPong: false });
    let answered = 0;
    let unanswered = 0;
    lively.socket.on('ping', () => answered++);
    silent.socket.on('ping', () => unanswered++);
    await Promise.all([lively.next('welcome'), silent.next('welcome')]);
    expect(await silent.end()).toEqual({ code: 4409, reason: 'no answer to ping' });
    expect(unanswered).toBe(2);
    await lively.settle();
    expect(lively.closed).toBeUndefined();
    expect(answered).toBeGreaterThanOrEqual(2);
  });
});
