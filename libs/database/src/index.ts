export {
  type DatabaseOptions,
  dataSourceOptions,
  type OpenDatabaseOptions,
  openDatabase,
  type WatchDatabaseOptions,
  watchDatabase,
} from './data-source.js';
export { isConflict, isUnavailable } from './failure.js';
export { type TransactionOptions, withTransaction } from './transaction.js';
