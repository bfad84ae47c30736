/**
 * Publishes that wait for JetStream's acknowledgement. One subscription and one timer serve all of them: the
 * client's own request makes a timer, an error with its stack and several promises for each, which was a third
 * of what a publish cost.
 */
import { createInbox, PermissionViolationError } from '@nats-io/nats-core';
import type { NatsConnectionImpl } from '@nats-io/nats-core/internal';
import type { Msg, MsgHdrs, NatsConnection } from '@nats-io/transport-node';
import type { InFlight } from './in-flight.js';

/** What JetStream answers once it has stored a message. */
export interface Ack {
  readonly seq: number;
  readonly duplicate?: boolean;
}

/** JetStream did not take a message, and said why. */
export class StoreRefusal extends Error {
  /** The server's own number for it. */
  readonly code: number;

  constructor(code: number, description: string) {
    super(description);
    this.code = code;
  }
}

/** The server does not let this connection publish on a subject. */
export class SubjectRefusal extends Error {
  constructor() {
    super('the server refused the subject');
  }
}

interface Waiting {
  readonly subject: string;
  readonly until: number;
  readonly resolve: (ack: Ack) => void;
  readonly reject: (error: Error) => void;
}

export class Acknowledgements {
  readonly #nc: NatsConnection;
  readonly #inFlight: InFlight;
  readonly #timeout: number;
  readonly #acknowledged: (seconds: number) => void;
  readonly #prefix: string;
  /** In the order of publishing, which is that of their ends. */
  readonly #waiting = new Map<string, Waiting>();
  #subscribed = false;
  #last = 0;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param timeout how long an acknowledgement may take, in milliseconds
   * @param acknowledged told of each how long it took
   */
  constructor(
    nc: NatsConnection,
    inFlight: InFlight,
    timeout: number,
    acknowledged: (seconds: number) => void,
  ) {
    this.#nc = nc;
    this.#inFlight = inFlight;
    this.#timeout = timeout;
    this.#acknowledged = acknowledged;
    this.#prefix = `${createInbox((nc as NatsConnectionImpl).options.inboxPrefix)}.`;
    inFlight.onLost((error) => this.#rejectAll(error));
    void this.#follow();
  }

  /**
   * Resolves once the message is stored.
   * @throws StoreRefusal, SubjectRefusal; an Error where the connection is lost, nobody answers or no stream takes the subject
   */
  publish(subject: string, data: Uint8Array, headers: MsgHdrs): Promise<Ack> {
    if (this.#inFlight.lost) return Promise.reject(new Error('the connection is lost'));
    if (!this.#subscribed) this.#subscribe();
    const token = (++this.#last).toString(36);
    return new Promise((resolve, reject) => {
      this.#nc.publish(subject, data, { headers, reply: this.#prefix + token });
      this.#waiting.set(token, { subject, until: performance.now() + this.#timeout, resolve, reject });
      this.#timer ??= this.#timeOut(this.#timeout);
    });
  }

  #subscribe(): void {
    this.#subscribed = true;
    this.#nc.subscribe(`${this.#prefix}*`, {
      callback: (error, msg) => {
        if (error) this.#rejectAll(error);
        else this.#take(msg);
      },
    });
  }

  #take(msg: Msg): void {
    const token = msg.subject.slice(this.#prefix.length);
    const waiting = this.#waiting.get(token);
    // Too late: it was given up.
    if (!waiting) return;
    this.#waiting.delete(token);
    try {
      waiting.resolve(readAck(msg));
      this.#acknowledged((performance.now() - waiting.until + this.#timeout) / 1_000);
    } catch (error) {
      waiting.reject(error as Error);
    }
  }

  #timeOut(after: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.#timer = undefined;
      const now = performance.now();
      for (const [token, { until, reject }] of this.#waiting) {
        if (until > now) {
          this.#timer = this.#timeOut(until - now);
          return;
        }
        this.#waiting.delete(token);
        reject(new Error('no acknowledgement came in time'));
      }
    }, after);
    return timer.unref();
  }

  /** Nobody answers what the server did not take. Ends with the connection. */
  async #follow(): Promise<void> {
    for await (const status of this.#nc.status()) {
      if (status.type !== 'error' || !(status.error instanceof PermissionViolationError)) continue;
      const { operation, subject: refused } = status.error;
      if (operation !== 'publish') continue;
      for (const [token, { subject, reject }] of this.#waiting) {
        if (subject !== refused) continue;
        this.#waiting.delete(token);
        reject(new SubjectRefusal());
      }
    }
  }

  #rejectAll(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** @throws StoreRefusal, or an Error for what is no answer of JetStream */
function readAck(msg: Msg): Ack {
  // The server's own word that nobody listens: a status line without a body.
  if (msg.data.length === 0) throw new Error('no stream takes the subject');
  const answer = msg.json<Partial<Ack> & { error?: { err_code?: number; description?: string } }>();
  if (answer.error) throw new StoreRefusal(answer.error.err_code ?? 0, answer.error.description ?? '');
  if (!Number.isSafeInteger(answer.seq)) throw new Error('the answer is no acknowledgement');
  return answer as Ack;
}
