import type { Distribution, Metrics } from '@posthorn/service';
import type { DataSource } from 'typeorm';

/** What node-postgres tells of a pool. */
interface Pool {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
  readonly options: { readonly max: number };
}

/** How long a look at the database may take, in seconds. */
const LOOKED = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15];

/** What a process counts of its database. Made ahead of the connections to it. */
export class DatabaseMetrics {
  /** How long a question without work took, until a connection was free included, in seconds. */
  readonly looked: Distribution;
  #pool: Pool | undefined;

  constructor(metrics: Metrics) {
    metrics.gauges(
      'database_connections',
      'Connections of the pool, by what they do',
      { used: { state: 'in_use' }, idle: { state: 'idle' } },
      {
        used: () => (this.#pool ? this.#pool.totalCount - this.#pool.idleCount : 0),
        idle: () => this.#pool?.idleCount ?? 0,
      },
    );
    metrics.gauge('database_connections_limit', 'Connections that the pool may have', () =>
      this.#pool ? this.#pool.options.max : 0,
    );
    metrics.gauge(
      'database_waiting',
      'Statements and transactions that wait for a connection',
      () => this.#pool?.waitingCount ?? 0,
    );
    this.looked = metrics.histogram(
      'database_ping_seconds',
      'How long SELECT 1 took, the wait for a connection included: every two seconds, failures too',
      LOOKED,
    );
  }

  /** Tells of this database from now on. */
  follow(source: DataSource): void {
    this.#pool = (source.driver as unknown as { readonly master: Pool }).master;
  }
}
