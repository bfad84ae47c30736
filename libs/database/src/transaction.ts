import { setTimeout as sleep } from 'node:timers/promises';
import type { DataSource, EntityManager } from 'typeorm';
import { isConflict } from './failure.js';

/** How a transaction runs. */
export interface TransactionOptions {
  /** Default: `READ COMMITTED`. */
  readonly isolation?: 'READ COMMITTED' | 'REPEATABLE READ' | 'SERIALIZABLE';
  /** How often it is run at most when it loses against another one (deadlock, serialization). Default: 5. */
  readonly attempts?: number;
}

/**
 * Runs `work` in one transaction: committed when it resolves, rolled back when it rejects. `work` may run
 * more than once, so it touches nothing but the given manager.
 */
export async function withTransaction<T>(
  source: DataSource,
  work: (manager: EntityManager) => Promise<T>,
  { isolation = 'READ COMMITTED', attempts = 5 }: TransactionOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await source.transaction(isolation, work);
    } catch (error) {
      if (attempt >= attempts || !isConflict(error)) throw error;
      // Run again at once, the loser can take back its first row before the winner wakes up: the same deadlock.
      await sleep(Math.random() * 10 * 2 ** attempt);
    }
  }
}
