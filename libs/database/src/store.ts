import { ProblemError } from '@posthorn/contracts';
import { onceUntil, type Service } from '@posthorn/service';
import type { DataSource } from 'typeorm';
import { type DatabaseOptions, openDatabase, watchDatabase } from './data-source.js';
import { DatabaseMetrics } from './database-metrics.js';
import { isUnavailable } from './failure.js';
import { type DatabaseAddress, databaseSettings } from './tls.js';

/** The part of an app's configuration that says where its database is. */
export interface StoreConfig extends DatabaseAddress {
  readonly databasePool: number;
}

/**
 * Opens the database of a service, in the schema that is named after the app: waits for the server, keeps the
 * health check `database` up to date, and is closed by the service's shutdown.
 *
 * @throws as {@link openDatabase}
 */
export async function openStore(
  service: Service,
  config: StoreConfig,
  content: Pick<DatabaseOptions, 'entities' | 'migrations'>,
): Promise<DataSource> {
  const { app, logger, health, shutdown } = service;
  const metrics = new DatabaseMetrics(service.metrics);
  const source = await openDatabase({
    ...content,
    ...databaseSettings(config),
    poolSize: config.databasePool,
    schema: app,
    onConnectionLost: (err) => logger.debug({ err }, 'a database connection was lost'),
    retry: (attempt) => service.waitFor('database', attempt),
  });
  metrics.follow(source);
  const away = onceUntil(logger, { begins: 'the database is away', ends: 'the database is back' });
  const unwatch = watchDatabase(
    source,
    (up, detail) => {
      health.set('database', up, detail);
      if (up) away.end();
      else away.begin({ reason: detail });
    },
    { took: (seconds) => metrics.looked.observe(seconds) },
  );
  shutdown.on('close', 'database', async () => {
    await unwatch();
    await source.destroy();
  });
  return source;
}

/** The database is away, as an error that a caller or the bus understands; undefined for other errors. */
export function databaseAway(error: unknown): ProblemError | undefined {
  if (error instanceof ProblemError || !isUnavailable(error)) return undefined;
  return new ProblemError('unavailable', 'The database is away', { cause: error });
}
