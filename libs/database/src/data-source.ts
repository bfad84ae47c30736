import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { DataSource, type DataSourceOptions, type Logger, MigrationExecutor } from 'typeorm';
import { isUnavailable } from './failure.js';
import { type DatabaseTls, databaseTlsRefusal, driverAddress } from './tls.js';

/** An app's part of the database. */
export interface DatabaseOptions {
  /** `postgres://` URL; its `sslmode` is read as docs/configuration.md has it. */
  readonly url: string;
  readonly tls?: DatabaseTls | undefined;
  /** The schema that the app owns, usually named after it. Entities, migrations and plain SQL resolve in it. */
  readonly schema: string;
  readonly entities: DataSourceOptions['entities'];
  readonly migrations?: DataSourceOptions['migrations'];
  /** Connections that this process opens at most. Default: 10. */
  readonly poolSize?: number;
  /** Told of idle connections that broke. The pool replaces them by itself; without a listener they are ignored. */
  readonly onConnectionLost?: (error: Error) => void;
}

/** What {@link openDatabase} takes beside that. */
export interface OpenDatabaseOptions extends DatabaseOptions {
  /**
   * Repeats an attempt until it works, for example `(attempt) => service.waitFor('database', attempt)`.
   * Only failures that waiting can cure reach it: a migration that is wrong rejects at once. Not given: one attempt.
   */
  readonly retry?: <T>(attempt: () => Promise<T>) => Promise<T>;
}

/**
 * TypeORM's options for an app's schema. A statement ends after 10 s on the server; the client gives up 5 s
 * later, which only happens when the server cannot be reached any more.
 */
export function dataSourceOptions(options: DatabaseOptions): DataSourceOptions {
  return connectionOptions(options, {
    connectionTimeoutMillis: 5_000,
    statement_timeout: 10_000,
    query_timeout: 15_000,
    idle_in_transaction_session_timeout: 30_000,
  });
}

/**
 * TypeORM writes failed migrations and pool errors to the console even with logging off. All of them reach
 * the caller as errors, who logs them once, in the process's own format and without statement parameters.
 */
const silent: Logger = {
  log() {},
  logMigration() {},
  logQuery() {},
  logQueryError() {},
  logQuerySlow() {},
  logSchemaBuild() {},
};

/**
 * A connection whose failure ends no process. The pool listens while it is idle, and whoever has taken it soon after; a
 * server that dies right behind its last answer is told of between the two, in the same step, to nobody. A statement on
 * it fails, and the pool replaces it.
 */
class Connection extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config);
    this.on('error', () => {});
  }
}

function connectionOptions(options: DatabaseOptions, limits: Record<string, number>): DataSourceOptions {
  const { url, tls, schema, entities, migrations, poolSize = 10, onConnectionLost } = options;
  if (!/^[a-z][a-z0-9_]*$/.test(schema)) throw new TypeError(`Not a plain schema name: ${schema}`);
  const address = driverAddress(url, tls);
  return {
    type: 'postgres',
    url: address.url,
    schema,
    entities,
    migrations,
    poolSize,
    applicationName: `posthorn-${schema}`,
    migrationsTransactionMode: 'each',
    logger: silent,
    // gen_random_uuid() is built in; an app's role need not be allowed to install anything.
    uuidExtension: 'pgcrypto',
    installExtensions: false,
    // An idle connection reports here when its server goes away; unhandled, it would end the process.
    poolErrorHandler: (error: Error) => onConnectionLost?.(error),
    // Said also where it is not wanted: the driver would look into the environment.
    extra: {
      Client: Connection,
      keepAlive: true,
      options: `-c search_path=${schema}`,
      ssl: address.ssl,
      ...limits,
    },
  };
}

/**
 * Opens an app's database: waits for the server, creates the schema when it is missing, runs the pending
 * migrations, and returns the connected data source. Replicas may start at the same time: one migrates, the
 * others wait for it.
 *
 * @throws {StartError} when TLS does not come about
 * @throws when a migration fails, or when the server refuses us (password, missing database).
 */
export async function openDatabase({
  retry = (attempt) => attempt(),
  ...options
}: OpenDatabaseOptions): Promise<DataSource> {
  return untilReachable(retry, options, async () => {
    await migrate(options);
    return initialize(dataSourceOptions(options));
  });
}

/**
 * Does what {@link openDatabase} does before it connects, and no more: creates the schema when it is missing and runs
 * the pending migrations.
 *
 * @throws as {@link openDatabase}
 */
export async function migrateDatabase({
  retry = (attempt) => attempt(),
  ...options
}: OpenDatabaseOptions): Promise<void> {
  await untilReachable(retry, options, () => migrate(options));
}

/** Lets `retry` see only the failures that waiting can cure. */
async function untilReachable<T>(
  retry: NonNullable<OpenDatabaseOptions['retry']>,
  { url, tls }: DatabaseOptions,
  work: () => Promise<T>,
): Promise<T> {
  const outcome = await retry(async () => {
    try {
      return { result: await work() };
    } catch (error) {
      if (isUnavailable(error)) throw error;
      return { error };
    }
  });
  if ('error' in outcome) throw databaseTlsRefusal(outcome.error, url, tls) ?? outcome.error;
  return outcome.result;
}

/**
 * Creates the schema and runs the pending migrations. The advisory lock and the migrations share one
 * session, so that the lock cannot be lost while they run; they have no time limits of ours.
 */
async function migrate(options: DatabaseOptions): Promise<void> {
  const source = await initialize(
    connectionOptions({ ...options, poolSize: 1 }, { connectionTimeoutMillis: 5_000 }),
  );
  try {
    const runner = source.createQueryRunner();
    try {
      await runner.query(`SELECT pg_advisory_lock(hashtextextended($1, 0))`, [`posthorn:${options.schema}`]);
      await runner.query(`CREATE SCHEMA IF NOT EXISTS "${options.schema}"`);
      const executor = new MigrationExecutor(source, runner);
      executor.transaction = 'each';
      await executor.executePendingMigrations();
    } finally {
      await runner.release();
    }
  } finally {
    // Ends the session, and with it the lock.
    await source.destroy();
  }
}

async function initialize(options: DataSourceOptions): Promise<DataSource> {
  const source = new DataSource(options);
  try {
    return await source.initialize();
  } catch (error) {
    // A data source that failed half-way keeps its pool, and destroy() refuses it.
    if (!source.isInitialized) await source.driver.disconnect().catch(() => undefined);
    throw error;
  }
}

/** How {@link watchDatabase} looks. */
export interface WatchDatabaseOptions {
  /** Pause between two looks, in ms. Default: 2,000. */
  readonly everyMs?: number;
  /** Told how long each look took, in seconds. */
  readonly took?: (seconds: number) => void;
}

/**
 * Asks the server every two seconds whether it answers, and reports each answer, for a health check.
 * Returns the way to stop it.
 */
export function watchDatabase(
  source: DataSource,
  report: (up: boolean, detail?: string) => void,
  { everyMs = 2_000, took }: WatchDatabaseOptions = {},
): () => Promise<void> {
  const stopped = new AbortController();
  const watch = async () => {
    while (!stopped.signal.aborted) {
      const began = performance.now();
      const detail = await source.query('SELECT 1').then(
        () => undefined,
        (error: Error & { code?: string }) => error.message || error.code || error.name,
      );
      if (stopped.signal.aborted) return;
      took?.((performance.now() - began) / 1_000);
      report(detail === undefined, detail);
      await sleep(everyMs, undefined, { signal: stopped.signal, ref: false }).catch(() => undefined);
    }
  };
  const watching = watch();
  return () => {
    stopped.abort();
    return watching;
  };
}
