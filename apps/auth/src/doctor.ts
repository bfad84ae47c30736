/** What auth needs, looked at: its secrets, NATS, the bucket of revocations, and its database. */
import type { NatsConnection } from '@nats-io/transport-node';
import { describeDifference, inspectBucket } from '@posthorn/bus/platform';
import { BUCKETS } from '@posthorn/contracts';
import { examineDatabase } from '@posthorn/database';
import {
  attempt,
  bucketFindings,
  examination,
  examineNats,
  type Finding,
  jetStreamFindings,
  loginFindings,
  processFindings,
  replicasFinding,
  signingFindings,
} from '@posthorn/service';
import { type AuthConfig, readAuthConfig } from './config.js';
import { SCHEMA } from './schema.js';

/** Files that one process opens: itself, its probes, its pool and NATS. */
const FILES = 1_024;

/** Looks at everything, with auth's own logins. */
export const examine = examination(readAuthConfig, async (config, production) => [
  ...configurationFindings(config, production),
  ...(await examineNats('auth', config, production, (nc) => revocations(nc, config, production))),
  ...(await attempt('database.reachable', () => examineDatabase('auth', config, SCHEMA))),
]);

/** What can be said without asking anybody. */
export function configurationFindings(config: AuthConfig, production: boolean): Finding[] {
  return [...processFindings(FILES), ...signingFindings(config, production), ...loginFindings(config)];
}

async function revocations(
  nc: NatsConnection,
  { streamReplicas: replicas }: AuthConfig,
  production: boolean,
): Promise<Finding[]> {
  const { findings, stats } = await jetStreamFindings(nc);
  if (!stats) return findings;
  const bucket = async () => {
    const { stream, missing, differences, info } = await inspectBucket(nc, BUCKETS.revoked, replicas);
    const texts = differences.map((one) => ({ text: describeDifference(one), changeable: one.changeable }));
    return bucketFindings({ what: `the bucket ${stream}`, missing, differences: texts }, info);
  };
  return [
    ...findings,
    replicasFinding(nc.info, replicas, production),
    ...(await attempt('buckets.settings', bucket)),
  ];
}
