import { NestFactory } from '@nestjs/core';
import { ProvisioningError, streamConfigs } from '@posthorn/bus/platform';
import { databaseAway, databaseFindings, openStore } from '@posthorn/database';
import {
  checkAtStart,
  keepUp,
  natsFindings,
  nestLogger,
  openNats,
  RpcProblemFilter,
  replicasFinding,
  rpcServerOptions,
  type Service,
  StartError,
} from '@posthorn/service';
import type { RegistryConfig } from './config.js';
import { configurationFindings } from './doctor.js';
import { Epochs } from './epoch.js';
import { RegistryMetrics } from './metrics.js';
import { Projection } from './projection.js';
import { registryModule } from './registry.module.js';
import { SCHEMA } from './schema.js';
import { Streams } from './streams.js';
import { Usages } from './usages.js';

/** The app's name: its queue group, its schema, its place in the subjects of its calls. */
const APP = 'registry';

/** How often things are looked after, in ms. Servers' advisories and reconnects bring a look forward. */
const EVERY = { epochs: 5_000, streams: 30_000, projection: 300_000, usage: 3_600_000 } as const;
/** The pause after a look that failed, in ms. */
const RETRY = 5_000;

/**
 * Runs the registry until the service shuts down. Waits for NATS and PostgreSQL, in whatever order they come;
 * takes calls once the streams, their epochs and the projection are as they have to be.
 *
 * @throws {StartError} where only an operator can help
 */
export async function startRegistry(config: RegistryConfig, service: Service): Promise<void> {
  const { logger, health, shutdown } = service;
  health.expect('nats', 'database', 'streams', 'epochs', 'projection', 'calls');
  const production = config.nodeEnv === 'production';
  await checkAtStart(production, logger, () => configurationFindings(config));
  const metrics = new RegistryMetrics(service.metrics);
  const [nats, source] = await Promise.all([openNats(service, config), openStore(service, config, SCHEMA)]);
  const { connection: nc } = nats;
  const { streamMaxAge: maxAgeSeconds, streamMaxBytes: maxBytes, streamReplicas: replicas } = config;

  await checkAtStart(production, logger, async () => [
    ...natsFindings(nc.info, config, true),
    replicasFinding(nc.info, replicas, true),
    ...(await databaseFindings(source, config)),
  ]);
  const wanted = streamConfigs({ maxAgeSeconds, maxBytes, replicas });
  const streams = new Streams({ nc, logger, wanted, metrics });
  const epochs = new Epochs({ nc, source, replicas, logger });
  const projection = new Projection({ nc, source, replicas, logger });
  const usages = new Usages(source, {
    publishes: config.publishesPerDay || null,
    bytes: config.storedBytesPerDay || null,
  });
  const recordEpochs = async () => {
    for (const stream of streams.names) await epochs.record(stream);
  };
  await provision(streams, service);
  await service.waitFor('epochs', recordEpochs);
  await service.waitFor('projection', () => projection.rebuild());

  const keep = (name: keyof typeof EVERY, run: () => Promise<void>) =>
    keepUp(name, service, { everyMs: EVERY[name], retryMs: RETRY, run });
  const keepEpochs = keep('epochs', recordEpochs);
  const keepProjection = keep('projection', () => projection.rebuild());
  const keepStreams = keep('streams', async () => {
    const misfits = await streams.check().finally(() => keepEpochs.soon());
    if (!(await projection.exists())) keepProjection.soon();
    await streams.measure();
    if (misfits.length > 0) throw new Error(misfits.join('; '));
  });
  const forgetUsage = keep('usage', () => usages.forget());
  const routines = [keepStreams, keepEpochs, keepProjection, forgetUsage];
  const lookNow = () => {
    for (const routine of routines) routine.soon();
  };
  projection.onFailure(() => keepProjection.soon());
  streams.onAdvisory(lookNow);
  nats.watch((connected) => connected && lookNow());
  for (const routine of routines) routine.start();
  forgetUsage.soon();
  keepStreams.soon();

  const app = await NestFactory.createMicroservice(
    registryModule({ source, projection, topicsPerAudience: config.topicsPerAudience, usages }),
    {
      ...rpcServerOptions({ nats, app: APP, tracing: service.tracing }),
      logger: nestLogger(logger),
      abortOnError: false,
    },
  );
  app.useGlobalFilters(new RpcProblemFilter({ logger, translate: databaseAway }));
  shutdown.on('stop accepting', 'calls', () => app.close());
  shutdown.on('finish in flight', 'routines', () => Promise.all(routines.map((routine) => routine.stop())));
  shutdown.on('flush', 'epochs', () => (nats.isConnected() ? recordEpochs() : undefined));
  await app.listen();
  // Until the servers have taken the subscriptions, callers hear that nobody is there.
  await nc.flush();
  health.set('calls', true);
  logger.info('the registry takes calls');
}

/** What the server will refuse however often it is asked ends the start: an operator has to see it. */
async function provision(streams: Streams, service: Service): Promise<void> {
  const refusal = await service.waitFor('streams', async () => {
    try {
      await streams.provision();
    } catch (error) {
      if (error instanceof ProvisioningError) return error;
      throw error;
    }
  });
  if (refusal) throw new StartError(refusal.message, { cause: refusal });
}
