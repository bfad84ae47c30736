import type { NatsConnection } from '@nats-io/transport-node';
import type { Metrics, Tally } from './metrics.js';

/** What a process counts of its connection to NATS. Made ahead of it: without servers, it says so. */
export class NatsMetrics {
  readonly lost: Tally;
  readonly reconnects: Tally;
  readonly slow: Tally;
  readonly errors: Tally;
  #connection: NatsConnection | undefined;
  #isConnected = () => false;

  constructor(metrics: Metrics) {
    metrics.gauge('nats_connected', 'Whether the servers can be reached: 1 or 0', () =>
      this.#isConnected() ? 1 : 0,
    );
    this.lost = metrics.counter('nats_disconnects_total', 'Times that the servers were lost');
    this.reconnects = metrics.counter('nats_reconnects_total', 'Times that the servers were found again');
    this.slow = metrics.counter(
      'nats_slow_consumers_total',
      'Times that a subscription of this process had too much waiting',
    );
    this.errors = metrics.counter(
      'nats_errors_total',
      'Errors that the servers told of: permissions, limits',
    );
    metrics.counters(
      'nats_messages_total',
      'Messages that went over the connection',
      { in: { direction: 'in' }, out: { direction: 'out' } },
      { in: () => this.#stats.inMsgs, out: () => this.#stats.outMsgs },
    );
    metrics.counters(
      'nats_bytes_total',
      'Bytes that went over the connection',
      { in: { direction: 'in' }, out: { direction: 'out' } },
      { in: () => this.#stats.inBytes, out: () => this.#stats.outBytes },
    );
  }

  /** Tells of this connection from now on. */
  follow(connection: NatsConnection, isConnected: () => boolean): void {
    this.#connection = connection;
    this.#isConnected = isConnected;
  }

  get #stats(): { inMsgs: number; outMsgs: number; inBytes: number; outBytes: number } {
    return this.#connection?.stats() ?? { inMsgs: 0, outMsgs: 0, inBytes: 0, outBytes: 0 };
  }
}
