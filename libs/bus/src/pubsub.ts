/**
 * The server SDK: `pubsub.local.topic(name)` and `pubsub.global.topic(name)`
 * (docs/protocols/esn.md, "pubsub").
 *
 * Usable without Nest. Calls made before the connection is up wait for it, bounded, and reject with a
 * reason; nothing is dropped silently.
 */
import { connect, type NatsConnection, type NodeConnectionOptions } from '@nats-io/transport-node';
import {
  checkName,
  isPattern,
  type PayloadOf,
  ProblemError,
  parseFilters,
  parseTopic,
  type Scope,
  type Target,
  type Topic,
  type TopicName,
} from '@posthorn/contracts';
import { JetStreamBus } from './jetstream/jetstream-bus.js';
import type { BusEvent, BusObserver, Delivery, Receipt } from './port.js';

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
  readonly observer?: Partial<BusObserver>;
  /** Anything else of the NATS client: credentials, TLS. */
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
  /** A durable consumer of this name, shared by all processes that give it. Without: live, in this process. */
  readonly durable?: string;
  readonly maxInFlight?: number;
}

/** What a handler gets beside the payload. `delivery` is there for durable subscriptions. */
export interface EventInfo {
  readonly event: BusEvent;
  readonly delivery?: Delivery;
}

export type Handler<Payload> = (payload: Payload, info: EventInfo) => unknown;

type Payload<Name extends string> = Name extends TopicName ? PayloadOf<Name> : unknown;

export interface PubSubSubscription {
  /** Resolves once events flow. */
  readonly ready: Promise<void>;
  close(): Promise<void>;
}

export interface TopicHandle<Name extends string> {
  /** Resolves once the event is stored; rejects with a ProblemError. Without data `{}` goes out. */
  publish(data?: Payload<Name> | Error, options?: PublishOptions): Promise<Receipt>;
  /** A throw of a durable handler means redelivery; a live handler's errors go to `onError` of the connection. */
  subscribe(handler: Handler<Payload<Name>>, options?: SubscribeOptions): PubSubSubscription;
  /** Ends every subscription of this handler on this topic. */
  unsubscribe(handler: Handler<Payload<Name>>): Promise<void>;
  /** Publishes here and on the same topic of `other`. */
  forward(other: ScopedPubSub, data?: Payload<Name>, options?: PublishOptions): Promise<[Receipt, Receipt]>;
}

export interface ScopedPubSub {
  readonly scope: Scope;
  topic<const Name extends string>(name: Name): TopicHandle<Name>;
}

export interface PubSub {
  readonly local: ScopedPubSub;
  readonly global: ScopedPubSub;
  /** Resolves once connected and ready to publish. */
  readonly ready: Promise<void>;
  /** Settles what is in work, then ends the connection. */
  close(): Promise<void>;
}

const DEFAULT_CONNECT_TIMEOUT = 10_000;

/** Connects in the background; the returned object can be used at once. */
export function connectPubSub(options: PubSubOptions): PubSub {
  return new NatsPubSub(options);
}

class NatsPubSub implements PubSub {
  readonly local: ScopedPubSub;
  readonly global: ScopedPubSub;
  readonly ready: Promise<void>;
  readonly #options: PubSubOptions;
  readonly #opening: Promise<JetStreamBus>;
  readonly #subscriptions = new Map<string, Set<{ handler: unknown; subscription: PubSubSubscription }>>();
  #nc: NatsConnection | undefined;
  #bus: JetStreamBus | undefined;
  #connected = false;
  #closed = false;

  constructor(options: PubSubOptions) {
    checkName('audience', options.audience);
    if (options.instance !== undefined) checkName('instance', options.instance);
    this.#options = options;
    this.#opening = this.#open();
    this.#opening.catch(() => {});
    this.ready = this.#opening.then(() => {});
    this.ready.catch(() => {});
    this.local = { scope: 'local', topic: (name) => this.#topic('local', name) };
    this.global = { scope: 'global', topic: (name) => this.#topic('global', name) };
  }

  async close(): Promise<void> {
    this.#closed = true;
    const open = [...this.#subscriptions.values()].flatMap((set) => [...set]);
    await Promise.all(open.map(({ subscription }) => subscription.close()));
    this.#bus?.close();
    await this.#nc?.drain().catch(() => {});
  }

  async #open(): Promise<JetStreamBus> {
    const { servers, audience, instance = 'main', source, observer, nats } = this.#options;
    const nc = await connect({
      ...(servers === undefined ? {} : { servers: typeof servers === 'string' ? servers : [...servers] }),
      name: source,
      waitOnFirstConnect: true,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      ...nats,
    });
    this.#nc = nc;
    if (this.#closed) {
      await nc.close();
      throw new ProblemError('unavailable', 'The connection was closed');
    }
    this.#connected = true;
    void this.#follow(nc);
    const bus = await JetStreamBus.open({
      nc,
      instance,
      audience,
      connected: () => this.#connected,
      ...(observer ? { observer } : {}),
    });
    this.#bus = bus;
    return bus;
  }

  async #follow(nc: NatsConnection): Promise<void> {
    for await (const status of nc.status()) {
      if (status.type === 'disconnect') this.#connected = false;
      if (status.type === 'reconnect') this.#connected = true;
    }
  }

  /** The bus, waited for within the bound. */
  async #ready(): Promise<JetStreamBus> {
    if (this.#closed) throw new ProblemError('unavailable', 'The connection was closed');
    if (this.#bus) return this.#bus;
    const limit = this.#options.connectTimeout ?? DEFAULT_CONNECT_TIMEOUT;
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new ProblemError('unavailable', `No connection to the event bus within ${limit} ms`));
      }, limit);
    });
    try {
      return await Promise.race([this.#opening, expired]);
    } finally {
      clearTimeout(timer);
    }
  }

  #topic<const Name extends string>(scope: Scope, name: Name): TopicHandle<Name> {
    const handle: TopicHandle<Name> = {
      publish: (data, options) => this.#publish(scope, name, data, options),
      subscribe: (handler, options) => this.#subscribe(scope, name, handler as Handler<unknown>, options),
      unsubscribe: (handler) => this.#unsubscribe(scope, name, handler),
      forward: (other, data, options) =>
        Promise.all([handle.publish(data, options), other.topic(name).publish(data, options)]),
    };
    return handle;
  }

  async #publish(scope: Scope, name: string, data: unknown, options: PublishOptions = {}): Promise<Receipt> {
    const message = messageOf(data);
    const topic = publishTopic(name, message);
    const bus = this.#bus ?? (await this.#ready());
    const { audience, source } = this.#options;
    return bus.publish({
      audience,
      topic,
      scope,
      message,
      principal: `service:${source}`,
      source,
      ...options,
    });
  }

  #subscribe(
    scope: Scope,
    name: string,
    handler: Handler<unknown>,
    options: SubscribeOptions = {},
  ): PubSubSubscription {
    const filters = parseFilters(name);
    const { audience } = this.#options;
    const inner: PubSubSubscription[] = [];
    let closed = false;
    const start = async (): Promise<void> => {
      const bus = await this.#ready();
      if (closed) return;
      if (options.durable !== undefined) {
        const { durable, maxInFlight } = options;
        const durableSubscription = bus.consume(
          { name: durable, scope, audience, filters, ...(maxInFlight ? { maxInFlight } : {}) },
          async (event, delivery) => {
            await handler(event.message, { event, delivery });
          },
        );
        inner.push(durableSubscription);
        await durableSubscription.ready;
        return;
      }
      const lives = filters.map((filter) =>
        bus.live({ audience, scope, filter }, (event) => runLive(handler, event)),
      );
      for (const live of lives) {
        inner.push({ ready: live.started.then(() => {}), close: async () => live.close() });
      }
      await Promise.all(lives.map((live) => live.started));
    };
    const ready = start();
    ready.catch(() => {});
    const key = `${scope} ${name}`;
    const entry = {
      handler: handler as unknown,
      subscription: {
        ready,
        close: async () => {
          closed = true;
          this.#subscriptions.get(key)?.delete(entry);
          await Promise.all(inner.map((subscription) => subscription.close()));
        },
      },
    };
    const set = this.#subscriptions.get(key) ?? new Set();
    this.#subscriptions.set(key, set.add(entry));
    return entry.subscription;
  }

  async #unsubscribe(scope: Scope, name: string, handler: unknown): Promise<void> {
    const set = this.#subscriptions.get(`${scope} ${name}`) ?? new Set();
    const entries = [...set].filter((entry) => entry.handler === handler);
    await Promise.all(entries.map(({ subscription }) => subscription.close()));
  }
}

/** The topic that a publish goes to: where the parameter is hidden, the payload's `target` is the key. */
export function publishTopic(name: string, message: object): Topic {
  const { target } = message as { target?: unknown };
  return parseTopic(name, typeof target === 'string' ? target : null);
}

/** The path filters of what somebody subscribes to. */
export function filtersOf(target: Target): readonly string[] {
  return isPattern(target) ? target.filters : [target.path];
}

function messageOf(data: unknown): object {
  if (data === undefined) return {};
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    throw new ProblemError('request_invalid', 'The payload must be an object');
  }
  return withPlainErrors(data) as object;
}

/** An `Error` has no enumerable properties and would go out as `{}`: it becomes `{name, message}`. */
function withPlainErrors(value: unknown, depth = 0): unknown {
  if (value instanceof Error) return { name: value.name, message: value.message };
  if (typeof value !== 'object' || value === null || depth > 64) return value;
  if (Array.isArray(value)) return value.map((item) => withPlainErrors(item, depth + 1));
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withPlainErrors(v, depth + 1)]));
}

function runLive(handler: Handler<unknown>, event: BusEvent): void {
  // A live handler has no redelivery: its failure is its own process's to report, and must not end the others.
  const fail = (error: unknown) =>
    process.emitWarning(`A live handler of ${event.topic.name} failed: ${String(error)}`, {
      type: 'PosthornHandlerError',
    });
  try {
    const result = handler(event.message, { event });
    if (result instanceof Promise) result.catch(fail);
  } catch (error) {
    fail(error);
  }
}
