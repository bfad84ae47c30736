import { NestFactory } from '@nestjs/core';
import type { MicroserviceOptions } from '@nestjs/microservices';
import { ProblemError } from '@posthorn/contracts';
import { isUnavailable, openDatabase, watchDatabase } from '@posthorn/database';
import {
  connectNats,
  createVerifier,
  KeyRing,
  nestLogger,
  onceUntil,
  RevocationList,
  Routine,
  RpcProblemFilter,
  rpcServerOptions,
  type Service,
  validationPipe,
} from '@posthorn/service';
import { authModule } from './auth.module.js';
import type { AuthConfig } from './config.js';
import { StoredRevocation } from './entities.js';
import { Revocation1800000000000 } from './migrations/1800000000000-revocation.js';
import { ApiToken1800000500000 } from './migrations/1800000500000-api-token.js';
import { Projection } from './projection.js';
import { RevocationStore } from './revocation-store.js';
import { Revoking } from './revoking.js';
import { Signing } from './signing.js';
import { StoredToken } from './tokens/stored-token.js';
import { TokenStore } from './tokens/token-store.js';
import { Tokens } from './tokens/tokens.js';

/** How often the bucket is compared with PostgreSQL, and tried again after a failure, in ms. */
const RECONCILE_MS = 30_000;
const RECONCILE_RETRY_MS = 1_000;

/**
 * Brings the auth app up on a service: resolves when it answers calls, however long NATS and PostgreSQL keep
 * it waiting, and in whichever order they come. The service's shutdown ends it.
 */
export async function startAuth(service: Service, config: AuthConfig): Promise<void> {
  const { health, logger, metrics, shutdown } = service;
  health.expect('nats', 'database', 'revocations', 'calls');
  const production = config.nodeEnv === 'production' && !config.courierCompat;
  const verifier = createVerifier({ ...config, issuer: config.jwtIssuer, production });
  const keys = new KeyRing(config.keySecret);

  const [nats, database] = await Promise.all([openNats(service, config), openStore(service, config)]);
  const store = new RevocationStore(database);
  const { streamReplicas: replicas, revocationRetention: retention } = config;
  const projection = new Projection({ nc: nats.connection, store, replicas, retention, logger });

  const revocations = await service.waitFor('revocations', async () => {
    await projection.reconcile();
    return RevocationList.load(nats, { logger });
  });
  metrics.gauge('auth_revocations', 'Revocations in force', () => revocations.size);
  shutdown.on('finish in flight', 'revocation list', () => revocations.close());

  const behind = onceUntil(logger, {
    begins: 'the bucket cannot be reconciled',
    ends: 'the bucket is reconciled again',
  });
  const reconciling = new Routine({
    everyMs: RECONCILE_MS,
    retryMs: RECONCILE_RETRY_MS,
    run: () => projection.reconcile(),
    report: (err) => {
      health.set('revocations', !err, err?.message);
      if (err) behind.begin({ err });
      else behind.end();
    },
  });
  projection.onFailure(() => reconciling.soon());
  const unwatch = nats.watch((connected) => connected && reconciling.soon());
  reconciling.start();
  shutdown.on('finish in flight', 'reconciliation', () => {
    unwatch();
    return reconciling.stop();
  });

  const sealed = metrics.counters('auth_keys_total', 'Keys handed out', {
    socket: { purpose: 'socket' },
    stream: { purpose: 'stream' },
  });
  const longSocketKeys = config.courierCompat;
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(
    authModule({
      signing: new Signing({ verifier, keys, revocations, longSocketKeys, sealed }),
      revoking: new Revoking({ source: database, store, projection }),
      tokens: new Tokens(new TokenStore(database), logger),
    }),
    { ...rpcServerOptions({ nats, app: 'auth' }), logger: nestLogger(logger) },
  );
  app.useGlobalPipes(validationPipe());
  app.useGlobalFilters(new RpcProblemFilter({ logger, translate: databaseAway }));
  await app.listen();
  shutdown.on('stop accepting', 'calls', () => app.close());
  await nats.connection.flush();
  health.set('calls', true);
  logger.info('answering calls');
}

async function openNats({ logger, health, shutdown }: Service, config: AuthConfig) {
  const nats = await connectNats({
    url: config.natsUrl,
    user: config.natsUser,
    password: config.natsPassword,
    credsFile: config.natsCreds,
    name: `auth-${config.instance}`,
    inboxPrefix: '_INBOX.auth',
    logger,
    health,
    signal: shutdown.signal,
  });
  shutdown.on('close', 'nats', () => nats.close());
  return nats;
}

async function openStore(service: Service, config: AuthConfig) {
  const { logger, health, shutdown } = service;
  const database = await openDatabase({
    url: config.databaseUrl,
    schema: 'auth',
    entities: [StoredRevocation, StoredToken],
    migrations: [Revocation1800000000000, ApiToken1800000500000],
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

/** The one failure of a dependency that means something to a caller and is not yet an error of the catalogue. */
function databaseAway(error: unknown): ProblemError | undefined {
  if (error instanceof ProblemError || !isUnavailable(error)) return undefined;
  return new ProblemError('unavailable', 'The database is away', { cause: error });
}
