/**
 * The server SDK: `pubsub.local.topic(name)` and `pubsub.global.topic(name)`
 * (docs/protocols/esn.md, "pubsub").
 *
 * Usable without Nest. Calls made while the connection is not up, at the start or later, wait for it, bounded in
 * time, number and bytes, and reject with a reason; nothing is dropped silently.
 */
import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type NatsConnection, type NodeConnectionOptions } from '@nats-io/transport-node';
import {
  checkName,
  encodeToken,
  findId,
  isPattern,
  type PayloadOf,
  ProblemError,
  parseFilters,
  parseTopic,
  type Scope,
  serviceInbox,
  type Target,
  type Topic,
  type TopicName,
  type Tracer,
  topicAt,
  type UserTopicName,
} from '@posthorn/contracts';
import { idOnBoth, publishOnBoth } from './both-scopes.js';
import { loginOf, type NatsCredentials } from './credentials.js';
import { checkDebounce, type Debounce, Debouncer } from './debounce.js';
import { checkDistinct, type Distinct, Repeats } from './distinct.js';
import { Claims } from './jetstream/claims.js';
import { JetStreamBus } from './jetstream/jetstream-bus.js';
import type {
  Bus,
  BusEvent,
  BusObserver,
  Delivery,
  DurableHandler,
  DurableOptions,
  DurableSubscription,
  EphemeralEvent,
  Receipt,
} from './port.js';
import { type NatsTls, natsTlsOptions } from './tls.js';

export interface PubSubOptions {
  /** NATS servers. Default: the client's own, loopback. */
  readonly servers?: string | readonly string[];
  /** The tenant whose events are published and heard. */
  readonly audience: string;
  /** The deployment that local events belong to. Default `main`. */
  readonly instance?: string;
  /** Names this service in `ce-source` and in idempotency. */
  readonly source: string;
  /** How long calls wait for the connection, in milliseconds. Default 10,000. */
  readonly connectTimeout?: number;
  /**
   * How many publishes may be under way at once, waiting for the connection or for their acknowledgement, and how
   * many bytes of payload they may have together: one more is `rate_limited`. Default 10,000 and 64 MiB.
   */
  readonly maxPending?: { readonly publishes?: number; readonly bytes?: number };
  /**
   * Takes what goes wrong where nobody waits: a live handler that throws, a subscription that could not begin.
   * Default: a warning of the process.
   */
  readonly onError?: (error: unknown, topic: string) => void;
  readonly observer?: Partial<BusObserver>;
  /**
   * Records what is published, and what durable subscriptions handle, in traces of this service. The traceparent that
   * an event goes out with, and that handlers see, is then that of its span.
   */
  readonly tracer?: Tracer;
  /** Who this service is to NATS, where that has users: what it may do is then made of `source`. */
  readonly credentials?: NatsCredentials;
  /** Demands TLS, as a `tls://` URL in `servers` does: `{}`, or files of a private authority and of our certificate. */
  readonly tls?: NatsTls;
  /** Anything else of the NATS client. */
  readonly nats?: NodeConnectionOptions;
}

export interface PublishOptions {
  /** The event's id; a UUIDv7 where absent. */
  readonly id?: string;
  /** The same key again within two minutes is stored once. Default: the id. */
  readonly idempotencyKey?: string;
  readonly traceparent?: string;
}

export interface SubscribeOptions {
  /**
   * A durable consumer, shared by all processes that give this name for this topic, audience and, on local,
   * instance; refused for an ephemeral topic, which has nothing to consume. Without: live, in this process.
   */
  readonly durable?: string;
  readonly maxInFlight?: number;
  /** Milliseconds after which an event whose process died is given to another. Default 30,000. */
  readonly ackWait?: number;
  /**
   * Of a burst of events only the last, once its quiet time is over. For durable subscriptions; the same in all
   * processes of one.
   */
  readonly debounce?: Debounce;
  /** Of events with the same values only one, also after {@link debounce}. As that. */
  readonly distinct?: Distinct;
}

/**
 * What a handler gets beside the payload. `delivery` is there for durable subscriptions. An event of an ephemeral
 * topic has no position, and no scope either: it is stored nowhere.
 */
export interface EventInfo {
  readonly event: EphemeralEvent & Partial<BusEvent>;
  readonly delivery?: Delivery;
}

export type Handler<Payload> = (payload: Payload, info: EventInfo) => unknown;

/** Of one user's documented topic, `personal.alice`, and of what takes several of them, `personal.>`. */
type UserPayload<Name extends string> = {
  [Template in UserTopicName]: Name extends `${Template}.${string}` ? PayloadOf<Template> : never;
}[UserTopicName];

type Payload<Name extends string> = Name extends TopicName
  ? PayloadOf<Name>
  : [UserPayload<Name>] extends [never]
    ? unknown
    : UserPayload<Name>;

export interface PubSubSubscription {
  /** Resolves once events flow; rejects where the connection did not come in time or was closed before. */
  readonly ready: Promise<void>;
  close(): Promise<void>;
}

export interface TopicHandle<Name extends string> {
  /**
   * Resolves once the event is stored, or the server has it where the topic is ephemeral; rejects with a
   * ProblemError. Without data `{}` goes out.
   */
  publish(data?: Payload<Name> | Error, options?: PublishOptions): Promise<Receipt>;
  /**
   * A throw of a durable handler means redelivery; a live handler's errors go to `onError`.
   * @throws ProblemError `request_invalid` for what is no topic and no pattern
   */
  subscribe(handler: Handler<Payload<Name>>, options?: SubscribeOptions): PubSubSubscription;
  /** Ends every subscription of this handler on this topic, whatever its spelling. */
  unsubscribe(handler: Handler<Payload<Name>>): Promise<void>;
  /**
   * Publishes here and on the same topic of `other`, under one id. Rejects where one of the two is missing, and
   * says which; the same call again with the same `id` or `idempotencyKey` stores only that one, within two minutes.
   */
  forward(other: ScopedPubSub, data?: Payload<Name>, options?: PublishOptions): Promise<[Receipt, Receipt]>;
}

export interface ScopedPubSub {
  readonly scope: Scope;
  topic<const Name extends string>(name: Name): TopicHandle<Name>;
}

export interface PubSub {
  readonly local: ScopedPubSub;
  readonly global: ScopedPubSub;
  /** Resolves once connected and ready to publish, for the first time; rejects where it was closed before. */
  readonly ready: Promise<void>;
  /** Settles what is in work, then ends the connection. */
  close(): Promise<void>;
}

const DEFAULT_CONNECT_TIMEOUT = 10_000;
const MAX_PENDING = { publishes: 10_000, bytes: 64 * 1024 * 1024 };
/** The pause before a failed connection is tried again, in milliseconds. */
const PAUSE = 250;
/** Where the NATS client looks by itself. */
const LOOPBACK = '127.0.0.1:4222';

/** Connects in the background; the returned object can be used at once. */
export function connectPubSub(options: PubSubOptions): PubSub {
  return new NatsPubSub(options);
}

/** What a `PubSub` is made of, for those who ask the bus itself. */
export interface Driver {
  readonly audience: string;
  /** The bus, waited for within the bound; rejects with `unavailable`. */
  ready(): Promise<JetStreamBus>;
  /** Aborted when it is closed. */
  readonly closing: AbortSignal;
}

/** @throws TypeError for what `connectPubSub` did not make */
export function driverOf(pubsub: PubSub): Driver {
  if (pubsub instanceof NatsPubSub) return pubsub.driver;
  throw new TypeError('This PubSub was not made by connectPubSub');
}

/**
 * What takes several topics of a `PubSub` through one durable consumer.
 * @throws TypeError for what `connectPubSub` did not make
 */
export function consumersOf(pubsub: PubSub): Pick<Bus, 'consume'> {
  if (pubsub instanceof NatsPubSub) return pubsub;
  throw new TypeError('This PubSub was not made by connectPubSub');
}

interface Registered {
  readonly handler: unknown;
  readonly subscription: PubSubSubscription;
}

/** Where calls wait for the bus. */
class Gate {
  readonly bus: Promise<JetStreamBus>;
  isOpen = false;
  #resolve!: (bus: JetStreamBus) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    this.bus = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.bus.catch(() => {});
  }

  open(bus: JetStreamBus): void {
    this.isOpen = true;
    this.#resolve(bus);
  }

  fail(error: unknown): void {
    this.#reject(error);
  }
}

class NatsPubSub implements PubSub {
  readonly local: ScopedPubSub;
  readonly global: ScopedPubSub;
  readonly ready: Promise<void>;
  readonly driver: Driver;
  readonly #options: PubSubOptions;
  /** The bus, once it could be used for the first time. */
  readonly #opening: Promise<JetStreamBus>;
  readonly #pending = { publishes: 0, bytes: 0 };
  readonly #consumers = new Set<DurableSubscription>();
  readonly #subscriptions = new Map<string, Set<Registered>>();
  /** Live subscriptions that have not begun: who subscribes and publishes at once hears itself. */
  readonly #starting = new Set<Promise<void>>();
  /** Aborted by {@link close}: calls that wait for the connection end. */
  readonly #closing = new AbortController();
  #nc: NatsConnection | undefined;
  /** Who we are, and whom we trust. */
  readonly #login: NodeConnectionOptions;
  #opened: JetStreamBus | undefined;
  /** Renewed each time the connection is lost. */
  #gate = new Gate();
  /** The bus while it can be used and nobody waits for it any more. */
  #bus: JetStreamBus | undefined;
  #connected = false;
  #lastError: unknown;

  constructor(options: PubSubOptions) {
    checkName('audience', options.audience);
    if (options.instance !== undefined) checkName('instance', options.instance);
    this.#options = options;
    const inboxPrefix = serviceInbox(options.source);
    this.#login = {
      ...loginOf(options.credentials),
      ...natsTlsOptions([options.servers ?? LOOPBACK].flat(), options.tls),
      ...(inboxPrefix ? { inboxPrefix } : {}),
    };
    setMaxListeners(0, this.#closing.signal);
    this.#closing.signal.addEventListener('abort', () => {
      this.#gate.fail(unavailable('The connection was closed'));
    });
    this.#opening = this.#gate.bus;
    this.ready = this.#opening.then(() => {});
    this.ready.catch(() => {});
    this.#open().catch((error) => this.#gate.fail(error));
    this.driver = {
      audience: options.audience,
      ready: () => this.#ready(),
      closing: this.#closing.signal,
    };
    this.local = { scope: 'local', topic: (name) => this.#topic('local', name) };
    this.global = { scope: 'global', topic: (name) => this.#topic('global', name) };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    const open = [...this.#subscriptions.values()].flatMap((set) => [...set]);
    await Promise.all(
      [...open.map(({ subscription }) => subscription), ...this.#consumers].map((one) => one.close()),
    );
    this.#opened?.close();
    const nc = this.#nc;
    if (!nc || nc.isClosed()) return;
    // Draining asks the server: one that is away would keep the connection, and this process, waiting.
    if (this.#connected) await nc.drain().catch(() => {});
    await nc.close();
  }

  /** What `JetStreamServer` consumes with: it waits for the connection as long as that takes. */
  consume(options: Omit<DurableOptions, 'audience'>, handler: DurableHandler): DurableSubscription {
    const { audience, instance = 'main' } = this.#options;
    const { scope } = options;
    const name = consumerName(options.name, [audience, scope, scope === 'local' ? instance : null]);
    let inner: DurableSubscription | undefined;
    let closed = false;
    const ready = this.#opening.then((bus) => {
      if (closed) throw unavailable('The subscription was closed');
      inner = bus.consume({ ...options, name, audience }, handler);
      return inner.ready;
    });
    ready.catch(() => {});
    const consumer: DurableSubscription = {
      ready,
      close: async () => {
        closed = true;
        this.#consumers.delete(consumer);
        await inner?.close();
      },
    };
    this.#consumers.add(consumer);
    return consumer;
  }

  async #open(): Promise<void> {
    const { audience, instance = 'main', observer, tracer } = this.#options;
    const nc = await this.#connect();
    this.#nc = nc;
    this.#connected = true;
    this.#lastError = undefined;
    void this.#follow(nc);
    this.#opened = await JetStreamBus.open({
      nc,
      instance,
      audience,
      connected: () => this.#connected,
      ...(observer ? { observer } : {}),
      ...(tracer ? { tracer } : {}),
    });
    this.#letThrough();
  }

  #letThrough(): void {
    const bus = this.#opened;
    const gate = this.#gate;
    if (!bus || !this.#connected || gate.isOpen) return;
    gate.open(bus);
    // Not before those who wait have gone on: calls keep their order.
    setImmediate(() => {
      if (gate === this.#gate) this.#bus = bus;
    });
  }

  /** Tries until it succeeds or is closed. Not `waitOnFirstConnect`: that hides why, and cannot be ended. */
  async #connect(): Promise<NatsConnection> {
    const { servers, source, nats } = this.#options;
    const { signal } = this.#closing;
    for (;;) {
      try {
        const nc = await connect({
          ...(servers === undefined ? {} : { servers: typeof servers === 'string' ? servers : [...servers] }),
          name: source,
          maxReconnectAttempts: -1,
          reconnectTimeWait: PAUSE,
          // A server that refuses for a while, with its accounts being changed, must not end it for good.
          ignoreAuthErrorAbort: true,
          // A stack for each question costs more than the question.
          noAsyncTraces: true,
          ...this.#login,
          ...nats,
        });
        if (!signal.aborted) return nc;
        await nc.close();
      } catch (error) {
        this.#lastError = error;
      }
      // Rejects once closed.
      await sleep(PAUSE, undefined, { signal });
    }
  }

  async #follow(nc: NatsConnection): Promise<void> {
    for await (const { type } of nc.status()) {
      if (type === 'disconnect' || type === 'close') {
        this.#connected = false;
        this.#bus = undefined;
        if (this.#gate.isOpen) this.#gate = new Gate();
      }
      if (type === 'reconnect') {
        this.#connected = true;
        // The bus hears of it in this turn, too.
        setImmediate(() => this.#letThrough());
      }
    }
  }

  /** The bus, waited for within the bound. */
  async #ready(): Promise<JetStreamBus> {
    if (this.#closing.signal.aborted) throw unavailable('The connection was closed');
    if (this.#bus) return this.#bus;
    const limit = this.#options.connectTimeout ?? DEFAULT_CONNECT_TIMEOUT;
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(unavailable(`No connection to the event bus within ${limit} ms`, this.#lastError));
      }, limit);
    });
    try {
      return await Promise.race([this.#gate.bus, expired]);
    } finally {
      clearTimeout(timer);
    }
  }

  #topic<const Name extends string>(scope: Scope, name: Name): TopicHandle<Name> {
    const handle: TopicHandle<Name> = {
      publish: (data, options) => this.#publish(scope, name, data, options),
      subscribe: (handler, options) => this.#subscribe(scope, name, handler as Handler<unknown>, options),
      unsubscribe: (handler) => this.#unsubscribe(scope, name, handler),
      forward: async (other, data, options = {}) => {
        const same = { ...options, id: options.id ?? this.#sharedId(name, data, options) };
        return publishOnBoth(
          [scope, () => handle.publish(data, same)],
          [other.scope, () => other.topic(name).publish(data, same)],
        );
      },
    };
    return handle;
  }

  async #publish(scope: Scope, name: string, data: unknown, options: PublishOptions = {}): Promise<Receipt> {
    const { message, bytes } = messageOf(data);
    const topic = publishTopic(name, message);
    this.#admit(bytes);
    try {
      const bus = await this.#ready();
      if (this.#starting.size > 0) await Promise.allSettled(this.#starting);
      const { audience, source } = this.#options;
      const principal = principalOf(source);
      return await bus.publish({ audience, topic, scope, message, principal, source, ...options });
    } finally {
      this.#pending.publishes -= 1;
      this.#pending.bytes -= bytes;
    }
  }

  /** @throws ProblemError `rate_limited` where more publishes are under way than this process may hold */
  #admit(bytes: number): void {
    const most = { ...MAX_PENDING, ...this.#options.maxPending };
    const pending = this.#pending;
    if (
      pending.publishes >= most.publishes ||
      (pending.publishes > 0 && pending.bytes + bytes > most.bytes)
    ) {
      const detail = `${pending.publishes} publishes of ${pending.bytes} bytes are under way: await some of them`;
      throw new ProblemError('rate_limited', detail, { retryAfter: 1 });
    }
    pending.publishes += 1;
    pending.bytes += bytes;
  }

  #sharedId(name: string, data: unknown, { idempotencyKey: key }: PublishOptions): string {
    const { audience, source } = this.#options;
    const { path } = publishTopic(name, messageOf(data).message);
    return idOnBoth({ audience, path, principal: principalOf(source) }, key);
  }

  #subscribe(
    scope: Scope,
    name: string,
    handler: Handler<unknown>,
    options: SubscribeOptions = {},
  ): PubSubSubscription {
    const filters = parseFilters(name);
    checkSelection(options);
    const inner: PubSubSubscription[] = [];
    let closed = false;
    const start = async (): Promise<void> => {
      const bus = await this.#ready();
      if (options.durable !== undefined) await this.#assertStored(bus, name, filters);
      if (closed) throw unavailable('The subscription was closed');
      inner.push(
        ...(options.durable === undefined
          ? this.#live(bus, scope, filters, handler)
          : [this.#durable(bus, scope, filters, handler, { ...options, durable: options.durable })]),
      );
      await Promise.all(inner.map((subscription) => subscription.ready));
    };
    const ready = start();
    ready.catch((error) => {
      if (!closed) this.#report(error, name);
    });
    if (options.durable === undefined) {
      this.#starting.add(ready);
      const started = () => setImmediate(() => this.#starting.delete(ready));
      ready.then(started, started);
    }
    const key = keyOf(scope, filters);
    const entry: Registered = {
      handler,
      subscription: {
        ready,
        close: async () => {
          closed = true;
          const set = this.#subscriptions.get(key);
          set?.delete(entry);
          if (set?.size === 0) this.#subscriptions.delete(key);
          await Promise.all(inner.map((subscription) => subscription.close()));
        },
      },
    };
    const set = this.#subscriptions.get(key) ?? new Set();
    this.#subscriptions.set(key, set.add(entry));
    return entry.subscription;
  }

  #live(
    bus: JetStreamBus,
    scope: Scope,
    filters: readonly string[],
    handler: Handler<unknown>,
  ): PubSubSubscription[] {
    const run = async (event: EphemeralEvent): Promise<void> => {
      // A live event has no redelivery: its handler's failure is reported, and must not end the others.
      try {
        await handler(event.message, { event });
      } catch (error) {
        this.#report(error, event.topic.name);
      }
    };
    const { audience } = this.#options;
    const take = (event: EphemeralEvent) => void run(event);
    return filters.map((filter) => {
      const stored = bus.live({ audience, scope, filter }, take);
      // Made in the same turn: once the other has begun, this one has too.
      const ephemeral = scope === 'global' ? bus.ephemeral({ audience, filter }, take) : undefined;
      const close = () => {
        stored.close();
        ephemeral?.close();
      };
      stored.started.catch(close);
      return { ready: stored.started.then(() => {}), close: async () => close() };
    });
  }

  /** @throws ProblemError `request_invalid` for an ephemeral topic */
  async #assertStored(bus: JetStreamBus, name: string, filters: readonly string[]): Promise<void> {
    for (const filter of filters) {
      // None for a wildcard.
      const topic = topicAt(filter, name);
      if (topic && (await bus.isEphemeral(this.#options.audience, topic))) {
        throw new ProblemError('request_invalid', `${topic.name} is ephemeral: it can be heard live only`);
      }
    }
  }

  #durable(
    bus: JetStreamBus,
    scope: Scope,
    filters: readonly string[],
    handler: Handler<unknown>,
    { durable, maxInFlight, ackWait, debounce, distinct }: SubscribeOptions & { durable: string },
  ): PubSubSubscription {
    const { audience } = this.#options;
    const name = consumerName(durable, [audience, scope, scope === 'local' ? bus.instance : null, filters]);
    const closing = new AbortController();
    // Every event that waits for its quiet time listens for the end.
    setMaxListeners(0, closing.signal);
    const next = ({ path: filter, position }: BusEvent) => bus.next({ audience, scope, filter }, position);
    const selections = [
      ...(debounce ? [new Debouncer(debounce, next, closing.signal)] : []),
      ...(distinct ? [new Repeats(distinct, name, new Claims(bus.js, bus.jsm))] : []),
    ];
    const consumer = bus.consume(
      {
        ...{ name, scope, audience, filters },
        ...(maxInFlight === undefined ? {} : { maxInFlight }),
        ...(ackWait === undefined ? {} : { ackWait }),
      },
      async (event, delivery) => {
        for (const selection of selections) if (!(await selection.takes(event, delivery))) return;
        await handler(event.message, { event, delivery });
      },
    );
    return {
      ready: consumer.ready,
      close: () => {
        closing.abort();
        return consumer.close();
      },
    };
  }

  async #unsubscribe(scope: Scope, name: string, handler: unknown): Promise<void> {
    const set = this.#subscriptions.get(keyOf(scope, parseFilters(name))) ?? new Set();
    const entries = [...set].filter((entry) => entry.handler === handler);
    await Promise.all(entries.map(({ subscription }) => subscription.close()));
  }

  #report(error: unknown, topic: string): void {
    const { onError = warn } = this.#options;
    onError(error, topic);
  }
}

/** @throws ProblemError `request_invalid` */
function checkSelection({ durable, debounce, distinct }: SubscribeOptions): void {
  if (debounce) checkDebounce(debounce);
  if (distinct) checkDistinct(distinct);
  if ((debounce || distinct) && durable === undefined) {
    throw new ProblemError('request_invalid', 'debounce and distinct need a durable subscription');
  }
}

function warn(error: unknown, topic: string): void {
  process.emitWarning(`Subscription of ${topic}: ${String(error)}`, { type: 'PosthornSubscriptionWarning' });
}

/** Subscriptions of one topic stand together, however its name was spelled. */
function keyOf(scope: Scope, filters: readonly string[]): string {
  return [scope, ...filters].join(' ');
}

/**
 * The name of a consumer on the server, where all audiences and topics share one space of names: one consumer
 * for two topics would give each event to either of the two handlers.
 */
function consumerName(durable: string, place: readonly unknown[]): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([durable, ...place]))
    .digest('base64url');
  return `${encodeToken(durable).slice(0, 100)}-${digest.slice(0, 22)}`;
}

function principalOf(source: string): string {
  return `service:${source}`;
}

function unavailable(detail: string, cause?: unknown): ProblemError {
  return new ProblemError('unavailable', detail, { cause });
}

/** The topic that a publish goes to: where the parameter is hidden, the payload's `target` is the key. */
export function publishTopic(name: string, message: object): Topic {
  return parseTopic(name, findId((message as { target?: unknown }).target));
}

/** The path filters of what somebody subscribes to. */
export function filtersOf(target: Target): readonly string[] {
  return isPattern(target) ? target.filters : [target.path];
}

/** The payload as it will be stored: what is checked is what others read. */
function messageOf(data: unknown): { message: object; bytes: number } {
  let text: string;
  let message: unknown;
  try {
    text = data === undefined ? '{}' : (JSON.stringify(data, withPlainErrors) ?? 'null');
    message = JSON.parse(text);
  } catch (cause) {
    throw new ProblemError('request_invalid', 'The payload is not JSON', { cause });
  }
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw new ProblemError('request_invalid', 'The payload must be an object');
  }
  return { message, bytes: Buffer.byteLength(text) };
}

/** An `Error` has no enumerable properties and would go out as `{}`. */
function withPlainErrors(_key: string, value: unknown): unknown {
  return value instanceof Error ? { name: value.name, message: value.message } : value;
}
