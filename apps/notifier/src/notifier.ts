import { createHash } from 'node:crypto';
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { NestFactory } from '@nestjs/core';
import type { CustomStrategy, MicroserviceOptions } from '@nestjs/microservices';
import { type DurableSubscription, JetStreamBus, JetStreamServer, SettlementFilter } from '@posthorn/bus';
import { BUCKETS, encodeToken, ProblemError, STREAMS } from '@posthorn/contracts';
import { openDatabase, watchDatabase } from '@posthorn/database';
import {
  connectNats,
  type NatsLink,
  nestLogger,
  onceUntil,
  Routine,
  RpcProblemFilter,
  rpcServerOptions,
  type Service,
  validationPipe,
} from '@posthorn/service';
import { Communities } from './communities.js';
import type { NotifierConfig } from './config.js';
import { Community, Inbox, Notification } from './entities.js';
import { databaseAway, refusedByDatabase } from './failure.js';
import { InboxReader } from './inbox.js';
import { NotifierMetrics } from './metrics.js';
import { Notifier1800000000000 } from './migrations/1800000000000-notifier.js';
import { callsModule, eventsModule } from './notifier.module.js';
import { Store } from './store.js';
import { Writer } from './writer.js';

/** How often the consumer's backlog is asked for, in ms. */
const BACKLOG_MS = 5_000;

/**
 * Brings the notifier up on a service: resolves when it handles events and answers calls, however long NATS,
 * PostgreSQL and the streams keep it waiting, and in whichever order they come. The service's shutdown ends it.
 */
export async function startNotifier(service: Service, config: NotifierConfig): Promise<void> {
  const { health, logger, shutdown } = service;
  health.expect('nats', 'database', 'streams', 'consumer', 'calls');
  const metrics = new NotifierMetrics(service.metrics);
  const database = openStore(service, config);
  const nats = await openNats(service, config);
  const [bus, source] = await Promise.all([openBus(service, config, nats, metrics), database]);

  const inbox = new InboxReader(source);
  const communities = new Communities({ source, lastEvent: () => lastEvent(bus.jsm) });
  const calls = await NestFactory.createMicroservice<MicroserviceOptions>(callsModule(inbox, communities), {
    ...rpcServerOptions({ nats, app: 'notifier' }),
    logger: nestLogger(logger),
  });
  calls.useGlobalPipes(validationPipe());
  calls.useGlobalFilters(new RpcProblemFilter({ logger, translate: problemOf }));
  await calls.listen();
  shutdown.on('stop accepting', 'calls', () => calls.close());
  await nats.connection.flush();
  health.set('calls', true);

  const writer = new Writer({ store: new Store(source), bus, metrics, batchSize: config.batchSize });
  const name = consumerName(config.instance);
  const server = new JetStreamServer(bus, {
    name,
    scope: 'local',
    audience: null,
    maxInFlight: config.inFlight,
    ackWait: config.ackWait,
  });
  const events = await NestFactory.createMicroservice<CustomStrategy>(eventsModule(writer), {
    strategy: server,
    logger: nestLogger(logger),
  });
  events.useGlobalFilters(new SettlementFilter());
  await events.listen();
  shutdown.on('finish in flight', 'events', () => events.close());
  await server.unwrap<DurableSubscription>().ready;
  health.set('consumer', true);

  const backlog = new Routine({
    everyMs: BACKLOG_MS,
    retryMs: BACKLOG_MS,
    run: async () => {
      const { num_pending } = await bus.jsm.consumers.info(STREAMS.local.name, name);
      metrics.pending.set(num_pending);
    },
    report: (err) => health.set('consumer', !err, err?.message),
  });
  const unwatch = nats.watch((connected) => connected && backlog.soon());
  backlog.start();
  backlog.soon();
  shutdown.on('finish in flight', 'backlog', () => {
    unwatch();
    return backlog.stop();
  });
  logger.info({ consumer: name }, 'handling events, answering calls');
}

/** The consumer of an instance, shared by its replicas. NATS allows 255 characters, and few of them. */
export function consumerName(instance: string): string {
  const token = encodeToken(instance);
  const short = token.length <= 200 ? token : createHash('sha256').update(instance).digest('hex');
  return `notifier-${short}`;
}

async function openNats({ logger, health, shutdown }: Service, config: NotifierConfig): Promise<NatsLink> {
  const nats = await connectNats({
    url: config.natsUrl,
    user: config.natsUser,
    password: config.natsPassword,
    credsFile: config.natsCreds,
    name: `notifier-${config.instance}`,
    inboxPrefix: '_INBOX.notifier',
    logger,
    health,
    signal: shutdown.signal,
  });
  shutdown.on('close', 'nats', () => nats.close());
  return nats;
}

async function openStore(service: Service, config: NotifierConfig) {
  const { logger, health, shutdown } = service;
  const database = await openDatabase({
    url: config.databaseUrl,
    schema: 'notifier',
    entities: [Notification, Inbox, Community],
    migrations: [Notifier1800000000000],
    poolSize: config.databasePool,
    retry: (attempt) => service.waitFor('database', attempt),
  });
  const away = onceUntil(logger, { begins: 'the database is away', ends: 'the database is back' });
  const unwatch = watchDatabase(database, (up, detail) => {
    health.set('database', up, detail);
    if (up) away.end();
    else away.begin({ reason: detail });
  });
  shutdown.on('close', 'database', async () => {
    await unwatch();
    await database.destroy();
  });
  return database;
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

/** When the stream stored its last local event, in nanoseconds since 1970; 0 where it never stored one. */
async function lastEvent(jsm: JetStreamManager): Promise<bigint> {
  try {
    const { state } = await jsm.streams.info(STREAMS.local.name);
    return nanoseconds(state.last_ts);
  } catch (cause) {
    throw new ProblemError('unavailable', 'The event store does not answer', { cause });
  }
}

/** RFC 3339 time with up to nine digits after the second. */
export function nanoseconds(time: string): bigint {
  const [, seconds = '', fraction = '', zone = ''] = /^([^.Z+]+)(?:\.(\d+))?(.*)$/.exec(time) ?? [];
  const whole = BigInt(Date.parse(`${seconds}${zone}`)) * 1_000_000n;
  const nanos = whole + BigInt(fraction.padEnd(9, '0').slice(0, 9));
  return nanos > 0n ? nanos : 0n;
}

/** Failures of the database that mean something to a caller. */
function problemOf(error: unknown): ProblemError | undefined {
  if (refusedByDatabase(error)) {
    return new ProblemError('request_invalid', 'The request holds what cannot be stored', { cause: error });
  }
  return databaseAway(error);
}
