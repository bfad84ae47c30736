/** Keeps a JetStream consumer bound, and hands on its messages. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsumerMessages, JsMsg } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { ProblemError } from '@posthorn/contracts';

/** The pause before a failed binding is tried again, in milliseconds. */
const PAUSE = 500;

export interface IntakeOptions {
  readonly nc: NatsConnection;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Creates or finds the consumer and begins to consume. Called again whenever that failed or ended. */
  readonly bind: () => Promise<ConsumerMessages>;
  /** Takes each message. Where it returns a promise, the next message waits for it. */
  readonly take: (message: JsMsg) => void | Promise<void>;
  /** Told when the consumer cannot be bound or goes away, once; and without an error when it is bound again. */
  readonly report: (error?: unknown) => void;
}

export class Intake {
  /** Resolves once the consumer was bound; rejects with `unavailable` where it ends before. */
  readonly bound: Promise<void>;
  /** Resolves when it has ended. */
  readonly over: Promise<void>;
  readonly #options: IntakeOptions;
  #messages: ConsumerMessages | undefined;

  constructor(options: IntakeOptions) {
    this.#options = options;
    let bound = () => {};
    let unbound = () => {};
    this.bound = new Promise((resolve, reject) => {
      bound = resolve;
      unbound = () => reject(new ProblemError('unavailable', 'The subscription was closed'));
    });
    this.bound.catch(() => {});
    options.signal.addEventListener('abort', () => {
      unbound();
      this.#messages?.stop();
    });
    this.over = this.#run(bound).finally(unbound);
  }

  /** After the signal: resolves once no further message is handed on. */
  async idle(): Promise<void> {
    // Without messages it is binding, perhaps to a server that is away: it ends by itself.
    if (this.#messages) await this.over;
  }

  async #run(bound: () => void): Promise<void> {
    const { nc, signal, bind, take, report } = this.#options;
    let complained = false;
    while (!signal.aborted && !nc.isClosed()) {
      try {
        this.#messages = await bind();
        if (signal.aborted) this.#messages.stop();
        else bound();
        if (complained) report();
        complained = false;
        for await (const message of this.#messages) {
          if (signal.aborted) message.nak();
          else {
            const taken = take(message);
            if (taken) await taken;
          }
        }
      } catch (error) {
        if (!complained && !signal.aborted) report(error);
        complained = true;
      }
      this.#messages = undefined;
      await sleep(PAUSE, undefined, { signal }).catch(() => {});
    }
  }
}
