export {
  type DatabaseOptions,
  dataSourceOptions,
  migrateDatabase,
  type OpenDatabaseOptions,
  openDatabase,
  type WatchDatabaseOptions,
  watchDatabase,
} from './data-source.js';
export { DatabaseMetrics } from './database-metrics.js';
export { databaseFindings, examineDatabase } from './doctor.js';
export { isConflict, isUnavailable } from './failure.js';
export { MIGRATION_FIELDS, runMigrations } from './migrations.js';
export { databaseAway, openStore, type StoreConfig } from './store.js';
export { type DatabaseTls, databaseTls } from './tls.js';
export { type TransactionOptions, withTransaction } from './transaction.js';
