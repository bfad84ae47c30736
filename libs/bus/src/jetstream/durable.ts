/** Durable consumers: each stored event to one of the processes that share a name, until it is settled. */
import {
  AckPolicy,
  type ConsumerMessages,
  DeliverPolicy,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
} from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/transport-node';
import { encodeToken, matchesFilter, parseStoredSubject, STREAMS, storedSubject } from '@posthorn/contracts';
import { storeDeadLetter } from '../dead-letters.js';
import type { BusObserver, DurableHandler, DurableOptions, DurableSubscription } from '../port.js';
import { DONE, PermanentFailure, type Settlement, settleFailure } from '../settlement.js';
import type { Epochs } from './epochs.js';
import { type EventReader, isRejection, type Rejection } from './event-reader.js';

export interface DurableParts {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly reader: EventReader;
  readonly epochs: Epochs;
  readonly instance: string;
  readonly observer: BusObserver;
  /** Says what the operator should know: a consumer that cannot be bound, a dead letter. Never payloads. */
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>) => void;
}

const DEFAULT_IN_FLIGHT = 512;
const DEFAULT_ACK_WAIT = 30_000;
/** The pause before a failed binding is tried again, in milliseconds. */
const PAUSE = 500;

export function consumeDurably(
  parts: DurableParts,
  options: DurableOptions,
  handler: DurableHandler,
): DurableSubscription {
  const consumer = new DurableConsumer(parts, options, handler);
  void consumer.run();
  return consumer;
}

class DurableConsumer implements DurableSubscription {
  readonly ready: Promise<void>;
  readonly #parts: DurableParts;
  readonly #options: DurableOptions;
  readonly #handler: DurableHandler;
  readonly #inFlight = new Map<JsMsg, Promise<void>>();
  readonly #ackWait: number;
  #markReady!: () => void;
  #messages: ConsumerMessages | undefined;
  #closing = false;
  #wake: () => void = () => {};
  #working: NodeJS.Timeout | undefined;

  constructor(parts: DurableParts, options: DurableOptions, handler: DurableHandler) {
    this.#parts = parts;
    this.#options = options;
    this.#handler = handler;
    this.#ackWait = options.ackWait ?? DEFAULT_ACK_WAIT;
    this.ready = new Promise((resolve) => {
      this.#markReady = resolve;
    });
  }

  /** Binds and takes events until closed; binds again when stream or consumer went away. */
  async run(): Promise<void> {
    const { log } = this.#parts;
    const { name } = this.#options;
    // An event in work keeps its place: a slow database must not make the server give it to another process.
    this.#working = setInterval(() => this.#keepWorking(), this.#ackWait / 3);
    this.#working.unref();
    let complained = false;
    while (!this.#closing && !this.#parts.nc.isClosed()) {
      try {
        const messages = await this.#bind();
        this.#messages = messages;
        this.#markReady();
        if (complained) log('info', 'consumer bound', { consumer: name });
        complained = false;
        for await (const message of messages) {
          if (this.#closing) message.nak();
          else this.#work(message);
        }
      } catch (error) {
        if (!complained && !this.#closing) {
          log('warn', 'waiting for the consumer', { consumer: name, error: String(error) });
        }
        complained = true;
      }
      if (this.#closing) break;
      await this.#pause();
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#wake();
    this.#messages?.stop();
    await Promise.all(this.#inFlight.values());
    clearInterval(this.#working);
    if (!this.#parts.nc.isClosed()) await this.#parts.nc.flush().catch(() => {});
  }

  async #bind(): Promise<ConsumerMessages> {
    const { js, jsm } = this.#parts;
    const { name, scope, maxInFlight = DEFAULT_IN_FLIGHT } = this.#options;
    const stream = STREAMS[scope].name;
    const filter_subject = this.#filterSubject();
    await jsm.consumers.add(stream, {
      durable_name: name,
      ack_policy: AckPolicy.Explicit,
      deliver_policy: DeliverPolicy.All,
      ack_wait: nanos(this.#ackWait),
      max_deliver: -1,
      max_ack_pending: maxInFlight,
      filter_subject,
    });
    const consumer = await js.consumers.get(stream, name);
    return consumer.consume({ max_messages: maxInFlight, abort_on_missing_resource: true });
  }

  /**
   * nats-server 2.9 knows one filter for a consumer: the narrowest that takes all topics. What it lets
   * through beyond them is skipped.
   */
  #filterSubject(): string {
    const { audience, scope, filters } = this.#options;
    const stored = storedSubject('x', scope, this.#parts.instance, commonFilter(filters)).split('.');
    stored[1] = audience === null ? '*' : encodeToken(audience);
    return stored.join('.');
  }

  #work(message: JsMsg): void {
    const work = this.#handle(message)
      .then((settlement) => this.#settle(message, settlement))
      .catch((error) => {
        this.#parts.log('error', 'settlement failed', { ...this.#place(message), error: String(error) });
        message.nak(1_000);
      })
      .finally(() => this.#inFlight.delete(message));
    this.#inFlight.set(message, work);
  }

  async #handle(message: JsMsg): Promise<Settlement> {
    const { reader, epochs } = this.#parts;
    const tries = message.info.deliveryCount;
    try {
      const source = parseStoredSubject(message.subject);
      if (!source || !this.#options.filters.some((filter) => matchesFilter(filter, source.path))) return DONE;
      const position = { epoch: epochs.of(this.#options.scope), sequence: message.seq };
      const event = reader.read(source, position, message.headers, message.data);
      if (isRejection(event)) throw rejected(event);
      await this.#handler(event, { tries, storedAt: message.timestampNanos });
      return DONE;
    } catch (error) {
      return settleFailure(error, tries);
    }
  }

  async #settle(message: JsMsg, settlement: Settlement): Promise<void> {
    const { observer, js, log } = this.#parts;
    const { name } = this.#options;
    if (settlement.kind === 'ack') {
      message.ack();
    } else if (settlement.kind === 'dead') {
      const tries = message.info.deliveryCount;
      // Stored first, settled second: a crash in between stores it again under the same id.
      await storeDeadLetter(js, name, message, { ...settlement, tries });
      message.term();
      log('warn', 'dead letter', { ...this.#place(message), code: settlement.code, tries });
    } else {
      message.nak(settlement.delay);
    }
    observer.settled(settlement.kind);
  }

  #keepWorking(): void {
    for (const message of this.#inFlight.keys()) message.working();
  }

  #place(message: JsMsg): Record<string, unknown> {
    return { consumer: this.#options.name, stream: message.info.stream, sequence: message.seq };
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, PAUSE);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** The narrowest single filter that takes whatever any of the path filters takes. */
export function commonFilter(filters: readonly string[]): string {
  const [first = '>', ...others] = [...new Set(filters)];
  if (others.length === 0) return first;
  const lists = others.map((filter) => filter.split('.'));
  const common: string[] = [];
  for (const token of first.split('.')) {
    const i = common.length;
    if (token === '>' || !lists.every((list) => list[i] === token)) break;
    common.push(token);
  }
  return [...common, '>'].join('.');
}

function rejected(rejection: Rejection): PermanentFailure {
  const findings = rejection.findings?.slice(0, 5).map(({ path, message }) => `${path || '/'} ${message}`);
  const reason = {
    no_topic: 'The subject is no topic',
    not_json: 'The payload is not UTF-8 JSON',
    not_object: 'The payload is no JSON object',
    schema: `The payload does not fit its schema: ${findings?.join('; ')}`,
    unsequenced: 'The copy has no place in the stream',
    late: 'The copy is late',
  }[rejection.reason];
  return new PermanentFailure('payload_invalid', reason);
}
