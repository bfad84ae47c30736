/** k8s/base/nats: the servers find each other, and let in whom they know. */

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { eventually } from '@posthorn/testing';
import { newSecrets } from '../tools/secrets.mjs';
import { type NatsFromFiles, startNatsFromFiles } from './support/nats-files.js';

const secrets = newSecrets();
let nats: NatsFromFiles;

beforeAll(async () => {
  nats = await startNatsFromFiles('k8s/base/nats/nats.conf', { size: 3, env: secrets });
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
});

const log = (user: string, pass: string | undefined, servers = nats.urls[0] ?? '') =>
  connect({ servers, user, ...(pass && { pass }), maxReconnectAttempts: 0 });

describe('the configuration of the NATS cluster', () => {
  it('makes one JetStream of three servers', async () => {
    await eventually(async () => {
      const seen = (await nats.jetstream()).map(({ meta_cluster }) => meta_cluster);
      return seen.every((one) => one?.cluster_size === 3 && one.leader && one.leader === seen[0]?.leader);
    });
  });

  it.each(['gateway', 'auth', 'registry', 'notifier'])('lets %s in, on any server', async (user) => {
    for (const url of nats.urls) {
      const connection = await log(user, secrets[`NATS_PASSWORD_${user.toUpperCase()}`], url);
      await connection.close();
    }
  });

  it('lets nobody in with the password of another, or without one', async () => {
    await expect(log('gateway', secrets.NATS_PASSWORD_AUTH)).rejects.toThrow(/authorization violation/i);
    await expect(log('gateway', undefined)).rejects.toThrow(/authorization violation/i);
    await expect(connect({ servers: nats.urls[0], maxReconnectAttempts: 0 })).rejects.toThrow(
      /authorization violation/i,
    );
  });
});
