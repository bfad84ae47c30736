export {
  type DatabaseOptions,
  dataSourceOptions,
  type OpenDatabaseOptions,
  openDatabase,
  type WatchDatabaseOptions,
  watchDatabase,
} from './data-source.js';
export { isConflict, isUnavailable } from './failure.js';
export { databaseAway, openStore, type StoreConfig } from './store.js';
export { type TransactionOptions, withTransaction } from './transaction.js';
