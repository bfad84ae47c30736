/** Calls that wait for an answer over a connection: they end when it is lost, not when their time is up. */
import type { NatsConnection } from '@nats-io/transport-node';

export class InFlight {
  readonly #waiting = new Set<(error: Error) => void>();
  readonly #listeners: ((error: Error) => void)[] = [];
  readonly #nc: NatsConnection;
  #lost = false;

  constructor(nc: NatsConnection) {
    this.#nc = nc;
    void this.#follow(nc);
  }

  /** Whether the connection has ended for good: no question is worth another try. */
  get closed(): boolean {
    return this.#nc.isClosed();
  }

  /** Whether the connection is lost now. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Calls the listener each time the connection is lost. */
  onLost(listener: (error: Error) => void): void {
    this.#listeners.push(listener);
  }

  /** Settles as `work` does, or rejects as soon as the connection is lost: no answer can come any more. */
  untilLost<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#lost) reject(new Error('the connection is lost'));
      this.#waiting.add(reject);
      work.finally(() => this.#waiting.delete(reject)).then(resolve, reject);
    });
  }

  /** Ends with the connection. */
  async #follow(nc: NatsConnection): Promise<void> {
    for await (const { type } of nc.status()) {
      if (type === 'reconnect') this.#lost = false;
      if (type !== 'disconnect' && type !== 'close') continue;
      this.#lost = true;
      const error = new Error('the connection was lost');
      for (const reject of this.#waiting) reject(error);
      this.#waiting.clear();
      for (const listener of this.#listeners) listener(error);
    }
  }
}
