import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { JetStreamBus } from '@posthorn/bus/platform';
import { BUCKETS, STREAMS } from '@posthorn/contracts';
import { databaseFindings, openStore } from '@posthorn/database';
import { checkAtStart, type NatsLink, natsFindings, openNats, type Service } from '@posthorn/service';
import { answerCalls } from './calls.js';
import { openCommunities } from './communities/communities.part.js';
import type { NotifierConfig } from './config.js';
import { openDeadLetters } from './dead-letters/dead-letters.part.js';
import { configurationFindings } from './doctor.js';
import { openInbox } from './inbox/inbox.part.js';
import { InboxUpdates } from './inbox/inbox-updates.js';
import { NotifierMetrics } from './metrics.js';
import type { Parts } from './parts.js';
import { startRetention } from './retention/retention.part.js';
import { SCHEMA } from './schema.js';
import { openTimeline, startTimeline } from './timeline/timeline.part.js';
import { startWorker } from './worker/worker.part.js';

/**
 * Brings the notifier up on a service: resolves when it handles events and answers calls, however long NATS,
 * PostgreSQL and the streams keep it waiting, and in whichever order they come. The service's shutdown ends it.
 *
 * @throws {StartError} in production, where it would not be safe
 */
export async function startNotifier(service: Service, config: NotifierConfig): Promise<void> {
  service.health.expect('nats', 'database', 'streams', 'consumer', 'activities', 'joins', 'calls');
  const production = config.nodeEnv === 'production';
  await checkAtStart(production, service.logger, () => configurationFindings(config));
  const metrics = new NotifierMetrics(service.metrics);
  const database = openStore(service, config, SCHEMA);
  const nats = await openNats(service, config);
  const [bus, source] = await Promise.all([openBus(service, config, nats, metrics), database]);
  await checkAtStart(production, service.logger, async () => [
    ...natsFindings(nats.connection.info, config, true),
    ...(await databaseFindings(source, config)),
  ]);
  const updates = new InboxUpdates({ source, bus, logger: service.logger });
  const parts: Parts = { service, config, nats, bus, source, updates, metrics };
  const deadLetters = openDeadLetters(parts);
  const communities = openCommunities(parts, deadLetters.managersSet);
  await answerCalls(parts, [openInbox(parts), communities, deadLetters, openTimeline(parts)]);
  await Promise.all([startWorker(parts), startTimeline(parts)]);
  startRetention(parts);
}

async function openBus(
  service: Service,
  config: NotifierConfig,
  nats: NatsLink,
  metrics: NotifierMetrics,
): Promise<JetStreamBus> {
  const { logger } = service;
  await service.waitFor('streams', () => assertStreams(nats.connection));
  const bus = await JetStreamBus.open({
    nc: nats.connection,
    instance: config.instance,
    audience: null,
    connected: () => nats.isConnected(),
    observer: metrics.observer,
    tracer: service.tracing,
    log: (level, message, fields) => logger[level](fields, message),
  });
  service.shutdown.on('flush', 'bus', () => bus.close());
  return bus;
}

/** What the registry prepares. Opening the bus before that would wait as well, and not say for what. */
async function assertStreams(nc: NatsConnection): Promise<void> {
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  const needed = [...Object.values(STREAMS).map(({ name }) => name), `KV_${BUCKETS.topics}`];
  for (const stream of needed) {
    await jsm.streams.info(stream).catch((cause: Error) => {
      throw new Error(`${stream}: ${cause.message}`, { cause });
    });
  }
  const epochs = await new Kvm(nc).open(BUCKETS.streams);
  for (const { name } of [STREAMS.global, STREAMS.local]) {
    if (!(await epochs.get(name))) throw new Error(`${name}: its epoch is not recorded`);
  }
}
