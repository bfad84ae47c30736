/** Four apps that reach NATS and PostgreSQL over TLS only, with a certificate of their own. */
import { execFile } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connectPubSub, type PubSub } from '@posthorn/bus';
import { createAuthority, startCluster, type TestCluster } from '@posthorn/testing';
import { createTenant, type Tenant, wholeInbox } from './support/tenant.js';

let cluster: TestCluster;
let acme: Tenant;
let pubsub: PubSub;

beforeAll(async () => {
  cluster = await startCluster({ tls: true });
  acme = await createTenant(cluster, 'acme');
  pubsub = connectPubSub({
    servers: cluster.natsUrl,
    tls: cluster.clientTls,
    audience: 'acme',
    source: 'spec',
  });
}, 120_000);

afterAll(async () => {
  await pubsub?.close();
  await cluster?.[Symbol.asyncDispose]();
});

/** The image, asked for a part of it that cannot start: what it prints, and how it ends. */
function run(argument: string, env: Record<string, string>) {
  const { caFile, certFile, keyFile } = cluster.clientTls;
  const options = {
    env: {
      PORT: '0',
      LOG_LEVEL: 'silent',
      NATS_URL: cluster.natsUrl,
      DATABASE_URL: cluster.databaseUrl,
      JWT_SECRET: cluster.secrets.jwt,
      KEY_SECRET: cluster.secrets.key,
      ...Object.fromEntries(
        ['NATS', 'DATABASE'].flatMap((server) => [
          [`${server}_CA`, caFile],
          [`${server}_CERT`, certFile],
          [`${server}_KEY`, keyFile],
        ]),
      ),
      ...env,
    },
    timeout: 100_000,
  };
  return new Promise<{ status: number | null; stderr: string }>((resolve) => {
    const child = execFile(process.execPath, ['docker/run.mjs', argument], options, (_error, _out, stderr) =>
      resolve({ status: child.exitCode, stderr }),
    );
  });
}

describe('over TLS', () => {
  it('an event is stored, and comes to a socket and as a notification into an inbox', async () => {
    await using ann = await acme.socket('ann');
    await ann.subscribe('news');
    await ann.subscribe('usernotification:created');
    await pubsub.global.topic('news').publish({ from: 'sdk' });
    expect(await ann.find(({ action, topic }) => action === 'message' && topic === 'news')).toMatchObject({
      message: { from: 'sdk' },
    });
    await acme.service('PUT', '/v1/communities/chess/managers', { managers: ['ann'] });
    const request = { author: 'tom', target: 'tom', community: 'chess' };
    await pubsub.local.topic('community:membership:request').publish(request);
    await ann.find(({ action, topic }) => action === 'message' && topic === 'usernotification:created');
    expect(await wholeInbox(await acme.as('ann'))).toHaveLength(1);
    const { connections } = await cluster.nats.monitor('connz');
    expect(connections.length).toBeGreaterThanOrEqual(5);
    for (const { tls_version } of connections) expect(tls_version).toBe('1.3');
  });

  it('a publisher that trusts another authority gets nothing through', async () => {
    const { caFile } = await createAuthority(cluster.home, 'stranger');
    const stranger = connectPubSub({
      servers: cluster.natsUrl,
      tls: { ...cluster.clientTls, caFile },
      audience: 'acme',
      source: 'stranger',
      connectTimeout: 1_000,
    });
    await expect(stranger.global.topic('news').publish({})).rejects.toMatchObject({
      code: 'unavailable',
      cause: { code: expect.stringMatching(/^(UNABLE_TO_VERIFY|SELF_SIGNED)/) },
    });
    await stranger.close();
  });

  it('every part of the image ends its start with what is wrong, and no secret', async () => {
    const { caFile } = await createAuthority(cluster.home, 'another');
    const parts = ['gateway', 'auth', 'registry', 'notifier', 'migrate'];
    const variable = (part: string) => (part === 'migrate' ? 'DATABASE_CA' : 'NATS_CA');
    // At the same time: most of a start is loading.
    const ends = await Promise.all(
      parts.map(async (part) => ({ part, ...(await run(part, { [variable(part)]: caFile })) })),
    );
    for (const { part, status, stderr } of ends) {
      const wrong = `its certificate is not signed by an authority in ${variable(part)} (${caFile}) (`;
      expect({ part, stderr }).toEqual({ part, stderr: expect.stringContaining(wrong) });
      expect({ part, lines: stderr.trim().split('\n').length }).toEqual({ part, lines: 1 });
      expect(stderr).not.toContain(new URL(cluster.databaseUrl).password);
      expect({ part, status }).toEqual({ part, status: 1 });
    }
  }, 120_000);
});
