import { createLogger, databaseFields, Health, readConfig, shared, waitFor } from '@posthorn/service';
import { type DatabaseOptions, migrateDatabase } from './data-source.js';
import { databaseSettings, databaseTls } from './tls.js';

/** The environment variables of a run of migrations: a part of those that each app with a database has. */
export const MIGRATION_FIELDS = {
  ...databaseFields,
  instance: shared.instance,
  logLevel: shared.logLevel,
} as const;

/**
 * Brings the schema that is named after an app up to date, before the app itself is started: waits for the server,
 * and returns when nothing is pending. The app does the same at its start; run before a roll-out, a migration that
 * fails leaves the running version as it is.
 *
 * @throws {ConfigError} naming every variable that is missing or not acceptable
 * @throws when a migration fails, or when the server refuses us
 */
export async function runMigrations(
  app: string,
  env: NodeJS.ProcessEnv,
  content: Pick<DatabaseOptions, 'entities' | 'migrations'>,
): Promise<void> {
  const config = readConfig(MIGRATION_FIELDS, { env, rules: [databaseTls] });
  const { instance, logLevel: level } = config;
  const logger = createLogger({ app, instance, level });
  const health = new Health();
  await migrateDatabase({
    ...content,
    ...databaseSettings(config),
    schema: app,
    retry: (attempt) => waitFor('database', attempt, { health, logger }),
  });
  logger.info('the schema is up to date');
}
