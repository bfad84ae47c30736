/** Durable consumers: each stored event to one of the processes that share a name, until it is settled. */
import { hash } from 'node:crypto';
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
  HEADER,
  matchesFilter,
  ProblemError,
  parseStoredSubject,
  redriveFilter,
  type Scope,
  type Span,
  STREAMS,
  storedSubject,
  type Tracer,
  traceIdOf,
} from '@posthorn/contracts';
import {
  ownHeaders,
  readPlace,
  type StoredEvent,
  type StoredPlace,
  storeDeadLetter,
} from '../dead-letters.js';
import type { BusEvent, BusObserver, DurableHandler, DurableOptions, DurableSubscription } from '../port.js';
import { DONE, holdDelay, PermanentFailure, type Settlement, SKIPPED, settleFailure } from '../settlement.js';
import { attributesOf, nameOf } from '../tracing.js';
import type { Epochs } from './epochs.js';
import { isEventId } from './event-id.js';
import { type EventReader, isRejection, type Rejection } from './event-reader.js';
import { headersOf, lastOf } from './headers.js';
import { Intake } from './intake.js';

export interface DurableParts {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly reader: EventReader;
  readonly epochs: Epochs;
  readonly instance: string;
  readonly observer: BusObserver;
  readonly tracer: Tracer | undefined;
  /** Says what the operator should know: a consumer that cannot be bound, a dead letter. Never payloads. */
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>) => void;
}

const DEFAULT_IN_FLIGHT = 512;
const DEFAULT_ACK_WAIT = 30_000;
/** How long one pull lasts, in milliseconds: a consumer that is gone is noticed after two silent halves of it. */
const PULL = 10_000;
/** The same for redrives, which are rare: a service may have many consumers. */
const REDRIVE_PULL = 60_000;
/**
 * Messages that one process asks for at a time, however many it may have in work: each may be larger than 1 MiB,
 * and nats-server (seen on 2.9) ends a connection before which 64 MiB wait. By bytes is no way: a pull that ends
 * with its bytes makes nats.js wait for two missed heartbeats.
 */
const PULLED = 32;
/** How long a closing consumer waits for the server to have its last settlements, in milliseconds. */
const FLUSH = 2_000;

/**
 * @throws RangeError without a filter: the consumer would take, and acknowledge, everything
 * @throws ProblemError `request_invalid` where `maxInFlight` leaves no room for an event: none would ever come
 */
export function consumeDurably(
  parts: DurableParts,
  options: DurableOptions,
  handler: DurableHandler,
): DurableSubscription {
  const { name, filters, maxInFlight = DEFAULT_IN_FLIGHT } = options;
  if (filters.length === 0) throw new RangeError(`the consumer ${name} has no filter`);
  if (!Number.isInteger(maxInFlight) || maxInFlight < 1) {
    throw new ProblemError(
      'request_invalid',
      `maxInFlight is ${maxInFlight}, and must be a whole number from 1`,
    );
  }
  return new DurableConsumer(parts, options, handler);
}

/** A message of either consumer, and the event that it brings. */
interface Incoming {
  readonly message: JsMsg;
  readonly place: StoredPlace;
  /** Whether the event was given up before. */
  readonly redriven: boolean;
}

class DurableConsumer implements DurableSubscription {
  readonly ready: Promise<void>;
  readonly #parts: DurableParts;
  readonly #options: DurableOptions;
  readonly #handler: DurableHandler;
  readonly #inFlight = new Map<JsMsg, Promise<void>>();
  readonly #slots: Slots;
  readonly #ackWait: number;
  readonly #closing = new AbortController();
  readonly #events: Intake;
  #redrives: Intake | undefined;

  constructor(parts: DurableParts, options: DurableOptions, handler: DurableHandler) {
    this.#parts = parts;
    this.#options = options;
    this.#handler = handler;
    this.#ackWait = options.ackWait ?? DEFAULT_ACK_WAIT;
    this.#slots = new Slots(this.#maxInFlight);
    // Every event that is held listens for the end.
    setMaxListeners(0, this.#closing.signal);
    // An event in work keeps its place: a slow database must not make the server give it to another process.
    const working = setInterval(() => this.#keepWorking(), this.#ackWait / 3);
    working.unref();
    this.#events = this.#takeEvents();
    this.ready = this.#events.bound;
    // Not before the name is known to be ours: then its redrives are ours, too.
    this.ready.then(
      () => {
        if (!this.#isClosing) this.#redrives = this.#takeRedrives();
      },
      () => {},
    );
    void this.#events.over.then(() => this.#idle()).then(() => clearInterval(working));
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#idle();
    const { nc } = this.#parts;
    if (nc.isClosed()) return;
    await Promise.race([nc.flush().catch(() => {}), sleep(FLUSH, undefined, { ref: false })]);
  }

  get #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  get #maxInFlight(): number {
    return this.#options.maxInFlight ?? DEFAULT_IN_FLIGHT;
  }

  get #limits() {
    return { ack_wait: nanos(this.#ackWait), max_ack_pending: this.#maxInFlight };
  }

  /** Asked for by halves: a question for each few costs a third of the throughput. */
  get #pulled() {
    const most = Math.min(PULLED, this.#maxInFlight);
    return { max_messages: most, threshold_messages: Math.ceil(most / 2) };
  }

  /** Resolves, once it is closing, when nothing is in work any more. */
  async #idle(): Promise<void> {
    await Promise.all([this.#events.idle(), this.#redrives?.idle()]);
    await Promise.all(this.#inFlight.values());
  }

  #takeEvents(): Intake {
    return this.#intake(
      'consumer',
      () => this.#bindEvents(),
      (message) => this.#work({ message, place: placeOf(message), redriven: false }),
    );
  }

  #takeRedrives(): Intake {
    return this.#intake(
      'redrives',
      () => this.#bindRedrives(),
      (message) => {
        const place = readPlace(headersOf(message));
        if (place) this.#work({ message, place, redriven: true });
        else message.term();
      },
    );
  }

  #intake(what: string, bind: () => Promise<ConsumerMessages>, take: (message: JsMsg) => void): Intake {
    const { nc, log } = this.#parts;
    const consumer = this.#options.name;
    const report = (error?: unknown) => {
      if (error === undefined) log('info', `${what} bound`, { consumer });
      else log('warn', `waiting for the ${what}`, { consumer, error: String(error) });
    };
    return new Intake({ nc, signal: this.#closing.signal, bind, take, report });
  }

  async #bindEvents(): Promise<ConsumerMessages> {
    const { js, jsm } = this.#parts;
    const { name, scope } = this.#options;
    const stream = STREAMS[scope].name;
    const current = await this.#current(stream, name);
    const filter = this.#filterSubject(current?.config.filter_subject);
    if (current && current.config.filter_subject === filter) {
      await jsm.consumers.update(stream, name, this.#limits);
    } else {
      // Seen on 2.9: a consumer takes another filter and then delivers nothing. It is made anew where it stood.
      if (current) await jsm.consumers.delete(stream, name);
      await jsm.consumers.add(stream, {
        ...this.#limits,
        durable_name: name,
        ack_policy: AckPolicy.Explicit,
        max_deliver: -1,
        filter_subject: filter,
        ...(current
          ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: current.ack_floor.stream_seq + 1 }
          : { deliver_policy: DeliverPolicy.All }),
      });
    }
    const consumer = await js.consumers.get(stream, name);
    return consumer.consume({
      ...this.#pulled,
      expires: PULL,
      abort_on_missing_resource: true,
    });
  }

  async #bindRedrives(): Promise<ConsumerMessages> {
    const { js, jsm } = this.#parts;
    const { scope } = this.#options;
    const stream = STREAMS.dead.name;
    const name = redriveConsumer(scope, this.#options.name);
    if (await this.#current(stream, name)) {
      await jsm.consumers.update(stream, name, this.#limits);
    } else {
      await jsm.consumers.add(stream, {
        ...this.#limits,
        durable_name: name,
        ack_policy: AckPolicy.Explicit,
        max_deliver: -1,
        filter_subject: redriveFilter(scope, this.#options.name),
        deliver_policy: DeliverPolicy.All,
      });
    }
    const consumer = await js.consumers.get(stream, name);
    return consumer.consume({
      ...this.#pulled,
      expires: REDRIVE_PULL,
      abort_on_missing_resource: true,
    });
  }

  async #current(stream: string, name: string): Promise<ConsumerInfo | undefined> {
    try {
      return await this.#parts.jsm.consumers.info(stream, name);
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound)
        return undefined;
      throw error;
    }
  }

  /** What stands before the path in the subjects of this consumer's events. */
  get #place(): string {
    const { audience, scope } = this.#options;
    const prefix = storedSubject('x', scope, this.#parts.instance, '').split('.');
    prefix[1] = audience === null ? '*' : encodeToken(audience);
    return prefix.join('.');
  }

  /**
   * nats-server 2.9 knows one filter for a consumer: the narrowest that takes all topics. What it lets
   * through beyond them is skipped. A filter only grows, so that two versions of a service, side by side while
   * one replaces the other, do not take turns at changing it.
   */
  #filterSubject(current: string | undefined): string {
    const { filters } = this.#options;
    const place = this.#place;
    if (current === undefined) return place + commonFilter(filters);
    if (!current.startsWith(place)) {
      throw new Error(`The consumer ${this.#options.name} is another's: it listens on ${current}`);
    }
    return place + commonFilter([current.slice(place.length), ...filters]);
  }

  #work(incoming: Incoming): void {
    const { message } = incoming;
    const work = this.#handle(incoming)
      .catch((error) => {
        this.#parts.log('error', 'settlement failed', { ...this.#where(incoming), error: String(error) });
        message.nak(1_000);
      })
      .finally(() => this.#inFlight.delete(message));
    this.#inFlight.set(message, work);
  }

  async #handle(incoming: Incoming): Promise<void> {
    const { observer } = this.#parts;
    const { name } = this.#options;
    let settlement = await this.#try(incoming);
    // Held here and not given back: each delivery counts as a try, and an outage must not use them up.
    for (let times = 0; settlement.kind === 'hold' && !this.#isClosing; times++) {
      observer.settled('hold', name);
      await this.#pause(holdDelay(times, this.#options.backoff));
      if (!this.#isClosing) settlement = await this.#try(incoming);
    }
    await this.#settle(incoming, settlement);
    if (settlement.kind === 'dead') observer.settled('dead', name, settlement.code);
    else observer.settled(settlement === SKIPPED ? 'skip' : settlement.kind, name);
  }

  async #try({ message, place, redriven }: Incoming): Promise<Settlement> {
    const { reader } = this.#parts;
    const { filters, backoff } = this.#options;
    const tries = message.info.deliveryCount;
    const free = this.#slots.take();
    if (free) await free;
    let span: Span | undefined;
    try {
      // A redrive says itself whose event it brings, and anybody may publish one.
      const foreign = redriven && !matchesFilter(`${this.#place}>`, place.subject);
      const source = foreign ? undefined : parseStoredSubject(place.subject);
      if (!source || !filters.some((filter) => matchesFilter(filter, source.path))) {
        // Skipped as others are, what somebody asked for once more would be lost without a word.
        if (redriven) throw new PermanentFailure('topic_unhandled', 'The consumer does not handle the topic');
        return SKIPPED;
      }
      const position = { epoch: this.#epochOf(place), sequence: place.sequence };
      const event = reader.read(source, position, headersOf(message), message.data);
      if (isRejection(event)) throw rejected(event);
      span = this.#span(event, tries, redriven);
      const traced = span ? { ...event, traceparent: span.traceparent } : event;
      await this.#handler(traced, { tries, storedAt: place.storedAt, redriven });
      finish(span, DONE);
      return DONE;
    } catch (error) {
      const settlement = settleFailure(error, tries, backoff);
      finish(span, settlement);
      return settlement;
    } finally {
      this.#slots.free();
    }
  }

  /** Each try is a span of its own, beside the others of its event. */
  #span(event: BusEvent, tries: number, redriven: boolean): Span | undefined {
    const { tracer } = this.#parts;
    if (!tracer || event.traceparent === undefined) return undefined;
    return tracer.start(nameOf('process', event.topic), {
      kind: 'consumer',
      parent: event.traceparent,
      attributes: {
        ...attributesOf('process', event),
        'messaging.consumer.group.name': this.#options.name,
        'posthorn.tries': tries,
        'posthorn.redriven': redriven || undefined,
      },
    });
  }

  async #settle(incoming: Incoming, settlement: Settlement): Promise<void> {
    const { js, log } = this.#parts;
    const { message, place } = incoming;
    switch (settlement.kind) {
      case 'ack':
        return message.ack();
      case 'retry':
        log('warn', 'an event will be tried again', {
          ...this.#where(incoming),
          tries: message.info.deliveryCount,
          delay: settlement.delay,
        });
        return message.nak(settlement.delay);
      case 'hold':
        return message.nak();
      case 'dead': {
        const tries = message.info.deliveryCount;
        const event: StoredEvent = {
          ...place,
          epoch: this.#epochOf(place),
          headers: ownHeaders(headersOf(message)),
          payload: message.data,
        };
        // Stored first, settled second: a crash in between stores it again under the same id.
        await storeDeadLetter(js, this.#options.name, event, { ...settlement, tries });
        message.term();
        log('warn', 'dead letter', { ...this.#where(incoming), code: settlement.code, tries });
      }
    }
  }

  /** @throws ProblemError `unavailable` while the epochs are not known */
  #epochOf({ epoch }: StoredPlace): string {
    return epoch || this.#parts.epochs.of(this.#options.scope);
  }

  #keepWorking(): void {
    for (const message of this.#inFlight.keys()) message.working();
  }

  /** What a line of the log says of an event: enough to find it, and its trace. */
  #where({ message, place: { stream, sequence, redrives } }: Incoming): Record<string, unknown> {
    const headers = headersOf(message);
    const event = headers && lastOf(headers, HEADER.id);
    const trace = headers && traceIdOf(lastOf(headers, HEADER.traceparent));
    return {
      consumer: this.#options.name,
      stream,
      sequence,
      ...(isEventId(event) && { event }),
      ...(trace && { trace }),
      ...(redrives > 0 && { redrives }),
    };
  }

  /** Waits, or ends at once when closed. */
  async #pause(delay: number): Promise<void> {
    await sleep(delay, undefined, { signal: this.#closing.signal }).catch(() => {});
  }
}

/** Ends the span of a try with what became of it. */
function finish(span: Span | undefined, settlement: Settlement): void {
  if (!span) return;
  span.set({ 'posthorn.settlement': settlement.kind });
  span.end(
    settlement.kind === 'ack' ? undefined : settlement.kind === 'dead' ? settlement.code : settlement.kind,
  );
}

/** How many events are with the handler: new and redriven ones together. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Undefined where there is one at once. */
  take(): Promise<void> | undefined {
    if (this.#free > 0) {
      this.#free -= 1;
      return undefined;
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  free(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free += 1;
  }
}

function placeOf(message: JsMsg): StoredPlace {
  const { stream, streamSequence: sequence } = message.info;
  const { subject, timestampNanos: storedAt } = message;
  return { subject, stream, epoch: '', sequence, storedAt, redrives: 0 };
}

/**
 * The consumer of redrives, beside a consumer of events. Those of both streams are in one, and a name may be as
 * long as NATS lets it.
 */
function redriveConsumer(scope: Scope, name: string): string {
  const whole = `${scope}-${name}`;
  return whole.length <= 200 ? whole : `${scope}-${hash('sha256', name)}`;
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
