/** What the registry needs, looked at: NATS, its streams and buckets, and its database. */
import type { NatsConnection } from '@nats-io/transport-node';
import {
  describeDifference,
  inspectBucket,
  inspectStreams,
  type StreamState,
  streamConfigs,
} from '@posthorn/bus/platform';
import { BUCKETS, STREAMS } from '@posthorn/contracts';
import { examineDatabase } from '@posthorn/database';
import {
  askMonitors,
  attempt,
  bucketFindings,
  bytesText,
  copiesFinding,
  examination,
  examineNats,
  type Finding,
  finding,
  jetStreamClock,
  jetStreamFindings,
  loginFindings,
  type Monitored,
  monitoredClocks,
  ok,
  processFindings,
  replicasFinding,
  retentionFinding,
  roomFindings,
  settingsFinding,
  syncFindings,
} from '@posthorn/service';
import { type RegistryConfig, readRegistryConfig } from './config.js';
import { SCHEMA } from './schema.js';

/** Files that one process opens: itself, its probes, its pool and NATS. */
const FILES = 1_024;

/** Looks at everything, with the registry's own logins. */
export const examine = examination(readRegistryConfig, async (config, production) => [
  ...configurationFindings(config),
  ...(await examineNats('registry', config, production, (nc) => jetStream(nc, config, production))),
  ...(await attempt('database.reachable', () => examineDatabase('registry', config, SCHEMA))),
]);

/** What can be said without asking anybody. */
export function configurationFindings(config: RegistryConfig): Finding[] {
  return [...processFindings(FILES), ...loginFindings(config)];
}

async function jetStream(
  nc: NatsConnection,
  config: RegistryConfig,
  production: boolean,
): Promise<Finding[]> {
  const { findings, stats } = await jetStreamFindings(nc);
  if (!stats) return findings;
  const { streamMaxAge: maxAgeSeconds, streamMaxBytes: maxBytes, streamReplicas: replicas } = config;
  const wanted = streamConfigs({ maxAgeSeconds, maxBytes, replicas });
  const reserved = wanted.reduce((sum, { max_bytes }) => sum + max_bytes, 0);
  const look = () => inspectStreams(nc, wanted);
  return [
    ...findings,
    replicasFinding(nc.info, replicas, production),
    ...accountRoom(stats.limits.max_storage, reserved * replicas),
    ...(await attempt('jetstream.sync', () => monitored(config, reserved, replicas))),
    ...(await attempt('streams.settings', async () => (await look()).flatMap(streamFindings))),
    ...(await attempt('buckets.settings', async () => {
      const buckets = [BUCKETS.topics, BUCKETS.streams].map((bucket) => inspectBucket(nc, bucket, replicas));
      return (await Promise.all(buckets)).flatMap((state) =>
        bucketFindings(settingsOf(state, 'bucket'), state.info),
      );
    })),
    ...(config.natsMonitorUrl === undefined
      ? await attempt('clock.nats', async () => [
          await jetStreamClock(
            async () => (await look()).find(({ stream }) => stream === STREAMS.global.name)?.info,
          ),
        ])
      : []),
  ];
}

/** What servers show on their monitoring port alone. */
async function monitored(
  { natsMonitorUrl }: RegistryConfig,
  reserved: number,
  replicas: number,
): Promise<Finding[]> {
  const servers: readonly Monitored[] | undefined =
    natsMonitorUrl === undefined ? undefined : await askMonitors(natsMonitorUrl);
  if (!servers)
    return [
      ...syncFindings(undefined),
      finding(
        'jetstream.room',
        'unchecked',
        `our streams may hold ${bytesText(reserved)}, and the room of servers is shown on their monitoring port only`,
        'Compare with max_file_store of each server and the free space of its disk; or set NATS_MONITOR_URL.',
      ),
    ];
  // Each server has its share of the copies.
  const share = (reserved * replicas) / Math.max(servers.length, replicas);
  return [...syncFindings(servers), ...roomFindings(servers, share), ...monitoredClocks(servers)];
}

function accountRoom(limit: number, reserved: number): Finding[] {
  if (limit < 0) return [];
  const found = `the account may store ${bytesText(limit)}, and our streams ${bytesText(reserved)} with all copies`;
  return [
    limit >= reserved
      ? ok('jetstream.room', found)
      : finding(
          'jetstream.room',
          'failure',
          found,
          "Raise max_file of the account's jetstream block, or lower STREAM_MAX_BYTES.",
        ),
  ];
}

function streamFindings(state: StreamState): Finding[] {
  const { stream, info } = state;
  return [
    settingsFinding('streams.settings', settingsOf(state, 'stream'), {
      missing: 'Start the registry: it makes it.',
      changeable:
        'Roll the registry out with the configuration that you want: it changes the stream at its start.',
      fixed: `Set the variables back to what the stream has; or save its events (nats stream backup ${stream} <directory>), remove it (nats stream rm ${stream}) and start the registry, which makes it anew: positions begin a new epoch.`,
    }),
    ...(info ? [copiesFinding(info), retentionFinding(info, Date.now())] : []),
  ];
}

function settingsOf({ stream, missing, differences }: StreamState, kind: string) {
  return {
    what: `the ${kind} ${stream}`,
    missing,
    differences: differences.map((difference) => ({
      text: describeDifference(difference),
      changeable: difference.changeable,
    })),
  };
}
