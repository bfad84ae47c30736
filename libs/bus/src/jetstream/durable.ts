/** Durable consumers: each stored event to one of the processes that share a name, until it is settled. */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AckPolicy,
  type ConsumerInfo,
  type ConsumerMessages,
  DeliverPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
} from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/transport-node';
import {
  encodeToken,
  matchesFilter,
  ProblemError,
  parseStoredSubject,
  STREAMS,
  storedSubject,
} from '@posthorn/contracts';
import { storeDeadLetter } from '../dead-letters.js';
import type { BusObserver, DurableHandler, DurableOptions, DurableSubscription } from '../port.js';
import { DONE, holdDelay, PermanentFailure, type Settlement, settleFailure } from '../settlement.js';
import type { Epochs } from './epochs.js';
import { type EventReader, isRejection, type Rejection } from './event-reader.js';
import { headersOf } from './headers.js';

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
/** How long one pull lasts, in milliseconds: a consumer that is gone is noticed after two silent halves of it. */
const PULL = 10_000;
/** How long a closing consumer waits for the server to have its last settlements, in milliseconds. */
const FLUSH = 2_000;
/** @throws RangeError without a filter: the consumer would take, and acknowledge, everything */
export function consumeDurably(
  parts: DurableParts,
  options: DurableOptions,
  handler: DurableHandler,
): DurableSubscription {
  if (options.filters.length === 0) throw new RangeError(`the consumer ${options.name} has no filter`);
  return new DurableConsumer(parts, options, handler);
}

class DurableConsumer implements DurableSubscription {
  readonly ready: Promise<void>;
  readonly #parts: DurableParts;
  readonly #options: DurableOptions;
  readonly #handler: DurableHandler;
  readonly #inFlight = new Map<JsMsg, Promise<void>>();
  readonly #ackWait: number;
  readonly #closing = new AbortController();
  readonly #running: Promise<void>;
  #messages: ConsumerMessages | undefined;

  constructor(parts: DurableParts, options: DurableOptions, handler: DurableHandler) {
    this.#parts = parts;
    this.#options = options;
    this.#handler = handler;
    this.#ackWait = options.ackWait ?? DEFAULT_ACK_WAIT;
    // Every event that is held listens for the end.
    setMaxListeners(0, this.#closing.signal);
    let bound = () => {};
    let ended = () => {};
    this.ready = new Promise((resolve, reject) => {
      bound = resolve;
      ended = () => reject(new ProblemError('unavailable', 'The subscription was closed'));
    });
    this.ready.catch(() => {});
    this.#closing.signal.addEventListener('abort', ended);
    this.#running = this.#run(bound).finally(ended);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#messages?.stop();
    // Without messages it is binding, perhaps to a server that is away: it ends by itself.
    if (this.#messages) await this.#running;
    await Promise.all(this.#inFlight.values());
    const { nc } = this.#parts;
    if (nc.isClosed()) return;
    await Promise.race([nc.flush().catch(() => {}), sleep(FLUSH, undefined, { ref: false })]);
  }

  get #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Binds and takes events until closed; binds again when stream or consumer went away. */
  async #run(bound: () => void): Promise<void> {
    const { log, nc } = this.#parts;
    // An event in work keeps its place: a slow database must not make the server give it to another process.
    const working = setInterval(() => this.#keepWorking(), this.#ackWait / 3);
    working.unref();
    let complained = false;
    while (!this.#isClosing && !nc.isClosed()) {
      try {
        this.#messages = await this.#bind();
        if (this.#isClosing) {
          this.#messages.stop();
          break;
        }
        bound();
        if (complained) log('info', 'consumer bound', { consumer: this.#options.name });
        complained = false;
        for await (const message of this.#messages) {
          if (this.#isClosing) message.nak();
          else this.#work(message);
        }
      } catch (error) {
        if (!complained && !this.#isClosing) {
          log('warn', 'waiting for the consumer', { consumer: this.#options.name, error: String(error) });
        }
        complained = true;
      }
      this.#messages = undefined;
      await this.#pause(PAUSE);
    }
    await Promise.all(this.#inFlight.values());
    clearInterval(working);
  }

  async #bind(): Promise<ConsumerMessages> {
    const { js, jsm } = this.#parts;
    const { scope, maxInFlight = DEFAULT_IN_FLIGHT } = this.#options;
    const stream = STREAMS[scope].name;
    const limits = { ack_wait: nanos(this.#ackWait), max_ack_pending: maxInFlight };
    const current = await this.#current(stream);
    const filter = this.#filterSubject(current?.config.filter_subject);
    if (current && current.config.filter_subject === filter) {
      await jsm.consumers.update(stream, this.#options.name, limits);
    } else {
      // Seen on 2.9: a consumer takes another filter and then delivers nothing. It is made anew where it stood.
      if (current) await jsm.consumers.delete(stream, this.#options.name);
      await jsm.consumers.add(stream, {
        ...limits,
        durable_name: this.#options.name,
        ack_policy: AckPolicy.Explicit,
        max_deliver: -1,
        filter_subject: filter,
        ...(current
          ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: current.ack_floor.stream_seq + 1 }
          : { deliver_policy: DeliverPolicy.All }),
      });
    }
    const consumer = await js.consumers.get(stream, this.#options.name);
    return consumer.consume({ max_messages: maxInFlight, expires: PULL, abort_on_missing_resource: true });
  }

  async #current(stream: string): Promise<ConsumerInfo | undefined> {
    try {
      return await this.#parts.jsm.consumers.info(stream, this.#options.name);
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound)
        return undefined;
      throw error;
    }
  }

  /**
   * nats-server 2.9 knows one filter for a consumer: the narrowest that takes all topics. What it lets
   * through beyond them is skipped. A filter only grows, so that two versions of a service, side by side while
   * one replaces the other, do not take turns at changing it.
   */
  #filterSubject(current: string | undefined): string {
    const { audience, scope, filters } = this.#options;
    const prefix = storedSubject('x', scope, this.#parts.instance, '').split('.');
    prefix[1] = audience === null ? '*' : encodeToken(audience);
    const place = prefix.join('.');
    if (current === undefined) return place + commonFilter(filters);
    if (!current.startsWith(place)) {
      throw new Error(`The consumer ${this.#options.name} is another's: it listens on ${current}`);
    }
    return place + commonFilter([current.slice(place.length), ...filters]);
  }

  #work(message: JsMsg): void {
    const work = this.#handle(message)
      .catch((error) => {
        this.#parts.log('error', 'settlement failed', { ...this.#place(message), error: String(error) });
        message.nak(1_000);
      })
      .finally(() => this.#inFlight.delete(message));
    this.#inFlight.set(message, work);
  }

  async #handle(message: JsMsg): Promise<void> {
    const { observer } = this.#parts;
    let settlement = await this.#try(message);
    // Held here and not given back: each delivery counts as a try, and an outage must not use them up.
    for (let times = 0; settlement.kind === 'hold' && !this.#isClosing; times++) {
      observer.settled('hold');
      await this.#pause(holdDelay(times, this.#options.backoff));
      if (!this.#isClosing) settlement = await this.#try(message);
    }
    await this.#settle(message, settlement);
    observer.settled(settlement.kind);
  }

  async #try(message: JsMsg): Promise<Settlement> {
    const { reader, epochs } = this.#parts;
    const { filters, scope, backoff } = this.#options;
    const tries = message.info.deliveryCount;
    try {
      const source = parseStoredSubject(message.subject);
      if (!source || !filters.some((filter) => matchesFilter(filter, source.path))) return DONE;
      const position = { epoch: epochs.of(scope), sequence: message.seq };
      const event = reader.read(source, position, headersOf(message), message.data);
      if (isRejection(event)) throw rejected(event);
      await this.#handler(event, { tries, storedAt: message.timestampNanos });
      return DONE;
    } catch (error) {
      return settleFailure(error, tries, backoff);
    }
  }

  async #settle(message: JsMsg, settlement: Settlement): Promise<void> {
    const { js, log } = this.#parts;
    switch (settlement.kind) {
      case 'ack':
        return message.ack();
      case 'retry':
        return message.nak(settlement.delay);
      case 'hold':
        return message.nak();
      case 'dead': {
        const tries = message.info.deliveryCount;
        // Stored first, settled second: a crash in between stores it again under the same id.
        await storeDeadLetter(js, this.#options.name, message, { ...settlement, tries });
        message.term();
        log('warn', 'dead letter', { ...this.#place(message), code: settlement.code, tries });
      }
    }
  }

  #keepWorking(): void {
    for (const message of this.#inFlight.keys()) message.working();
  }

  #place(message: JsMsg): Record<string, unknown> {
    return { consumer: this.#options.name, stream: message.info.stream, sequence: message.seq };
  }

  /** Waits, or ends at once when closed. */
  async #pause(delay: number): Promise<void> {
    await sleep(delay, undefined, { signal: this.#closing.signal }).catch(() => {});
  }
}

/** The narrowest single filter that takes whatever any of the path filters takes. */
export function commonFilter(filters: readonly string[]): string {
  const lists = [...new Set(filters)].map((filter) => filter.split('.'));
  const exact = lists.every((list) => list.at(-1) !== '>' && list.length === lists[0]!.length);
  // A rest stands where the first of them ends or has one.
  const length = Math.min(...lists.map((list) => (exact ? list.length : list.length - 1)));
  const tokens = Array.from({ length }, (_, i) => {
    const token = lists[0]![i]!;
    return lists.every((list) => list[i] === token) ? token : '*';
  });
  return (exact ? tokens : [...tokens, '>']).join('.');
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
    not_ephemeral: 'The topic is not ephemeral',
  }[rejection.reason];
  return new PermanentFailure('payload_invalid', reason);
}
