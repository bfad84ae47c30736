import { NestFactory } from '@nestjs/core';
import type { MicroserviceOptions } from '@nestjs/microservices';
import { databaseAway, databaseFindings, openStore } from '@posthorn/database';
import {
  checkAtStart,
  createVerifier,
  KeyRing,
  keepUp,
  natsFindings,
  nestLogger,
  openNats,
  RevocationList,
  RpcProblemFilter,
  replicasFinding,
  rpcServerOptions,
  type Service,
  validationPipe,
} from '@posthorn/service';
import { authModule } from './auth.module.js';
import type { AuthConfig } from './config.js';
import { configurationFindings } from './doctor.js';
import { AuthMetrics } from './metrics.js';
import { Projection } from './projection.js';
import { RevocationStore } from './revocation-store.js';
import { Revoking } from './revoking.js';
import { SCHEMA } from './schema.js';
import { Signing } from './signing.js';
import { TokenStore } from './tokens/token-store.js';
import { Tokens } from './tokens/tokens.js';

/** How often the bucket is compared with PostgreSQL, and tried again after a failure, in ms. */
const RECONCILE_MS = 30_000;
const RECONCILE_RETRY_MS = 1_000;

/**
 * Brings the auth app up on a service: resolves when it answers calls, however long NATS and PostgreSQL keep
 * it waiting, and in whichever order they come. The service's shutdown ends it.
 *
 * @throws {StartError} in production, where it would not be safe
 */
export async function startAuth(service: Service, config: AuthConfig): Promise<void> {
  const { health, logger, shutdown, tracing } = service;
  health.expect('nats', 'database', 'revocations', 'calls');
  const inProduction = config.nodeEnv === 'production';
  await checkAtStart(inProduction, logger, () => configurationFindings(config, true));
  const production = inProduction && !config.courierCompat;
  const verifier = createVerifier({ ...config, issuer: config.jwtIssuer, production });
  const keys = new KeyRing(config.keySecret);
  let inForce = () => 0;
  const metrics = new AuthMetrics(service.metrics, () => inForce());

  const [nats, database] = await Promise.all([openNats(service, config), openStore(service, config, SCHEMA)]);
  const { streamReplicas: replicas, revocationRetention: retention } = config;
  await checkAtStart(inProduction, logger, async () => [
    ...natsFindings(nats.connection.info, config, true),
    replicasFinding(nats.connection.info, replicas, true),
    ...(await databaseFindings(database, config)),
  ]);
  const store = new RevocationStore(database);
  const projection = new Projection({ nc: nats.connection, store, replicas, retention, logger });

  const revocations = await service.waitFor('revocations', async () => {
    await projection.reconcile();
    return RevocationList.load(nats, { logger });
  });
  inForce = () => revocations.size;
  shutdown.on('finish in flight', 'revocation list', () => revocations.close());

  const reconciling = keepUp('revocations', service, {
    everyMs: RECONCILE_MS,
    retryMs: RECONCILE_RETRY_MS,
    run: () => projection.reconcile(),
  });
  projection.onFailure(() => reconciling.soon());
  const unwatch = nats.watch((connected) => connected && reconciling.soon());
  reconciling.start();
  shutdown.on('finish in flight', 'reconciliation', () => {
    unwatch();
    return reconciling.stop();
  });

  const longSocketKeys = config.courierCompat;
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(
    authModule({
      signing: new Signing({ verifier, keys, revocations, longSocketKeys, sealed: metrics.keys }),
      revoking: new Revoking({ source: database, store, projection }),
      tokens: new Tokens(new TokenStore(database), metrics, logger),
    }),
    { ...rpcServerOptions({ nats, app: 'auth', tracing }), logger: nestLogger(logger) },
  );
  app.useGlobalPipes(validationPipe());
  app.useGlobalFilters(new RpcProblemFilter({ logger, translate: databaseAway }));
  await app.listen();
  shutdown.on('stop accepting', 'calls', () => app.close());
  await nats.connection.flush();
  health.set('calls', true);
  logger.info('answering calls');
}
