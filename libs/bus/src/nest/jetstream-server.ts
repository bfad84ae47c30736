/**
 * A Nest transport on JetStream: a handler is `@EventPattern<TopicName>('community:join')`, its payload typed by
 * the catalogue (`EventPayload<'community:join'>`), its context a {@link JetStreamContext}. It also takes other
 * topics (`@EventPattern<string>`), and patterns. The app needs a `SettlementFilter`.
 *
 * The handler's promise is the settlement: resolved means acknowledged, rejected means another try or a dead
 * letter by the policy in settlement.ts.
 */
import {
  type CustomTransportStrategy,
  type MessageHandler,
  type MsPattern,
  Server,
} from '@nestjs/microservices';
import { matchesFilter, type PayloadOf, parseFilters, type TopicName } from '@posthorn/contracts';
import { isObservable, lastValueFrom } from 'rxjs';
import type { Bus, BusEvent, Delivery, DurableOptions, DurableSubscription } from '../port.js';
import { consumersOf, type PubSub } from '../pubsub.js';

/** The payload of a documented topic, for the first parameter of a handler. */
export type EventPayload<Name extends TopicName> = PayloadOf<Name>;

/** The second parameter of a handler: everything about the event beside its payload. */
export class JetStreamContext {
  constructor(
    readonly event: BusEvent,
    readonly delivery: Delivery,
  ) {}
}

export type JetStreamServerOptions = Omit<DurableOptions, 'filters'>;

export class JetStreamServer extends Server implements CustomTransportStrategy {
  override readonly transportId = Symbol('jetstream');
  /** A handler's failure is settled and counted here; Nest does not have to log it. */
  override readonly propagatesEventHandlerErrors = true;
  readonly #bus: Pick<Bus, 'consume'>;
  readonly #options: JetStreamServerOptions;
  readonly #handlers: { readonly name: string; readonly callback: MessageHandler }[] = [];
  #subscription: DurableSubscription | undefined;

  /** Events of the SDK's audience; processes that give the same name, scope and instance share them. */
  constructor(pubsub: PubSub, options: Omit<JetStreamServerOptions, 'audience'>);
  constructor(bus: Pick<Bus, 'consume'>, options: JetStreamServerOptions);
  constructor(events: PubSub | Pick<Bus, 'consume'>, options: Partial<JetStreamServerOptions>) {
    super();
    this.#bus = 'local' in events ? consumersOf(events) : events;
    this.#options = options as JetStreamServerOptions;
  }

  /**
   * Handlers of one pattern stand beside each other. In Nest's own chain one that ends without a value, such as
   * an empty Observable, would end the others' too, and the event would be acknowledged before its time.
   */
  override addHandler(
    pattern: unknown,
    callback: MessageHandler,
    isEventHandler = false,
    extras: Record<string, unknown> = {},
  ): void {
    const name = this.normalizePattern(pattern as MsPattern);
    this.#handlers.push({ name, callback: Object.assign(callback, { isEventHandler, extras }) });
  }

  /** Binds the durable consumer; calls back at once, since the stream may be created later. */
  listen(callback: (error?: unknown) => void): void {
    try {
      const routes = this.#handlers.map(route);
      const filters = [...new Set(routes.flatMap((one) => one.filters))];
      if (filters.length > 0) {
        this.#subscription = this.#bus.consume({ ...this.#options, filters }, (event, delivery) =>
          run(routes, event, delivery),
        );
      }
      callback();
    } catch (error) {
      callback(error);
    }
  }

  async close(): Promise<void> {
    await this.#subscription?.close();
  }

  /** The underlying subscription, once listening. */
  override unwrap<T = DurableSubscription>(): T {
    if (!this.#subscription) throw new Error('The transport does not listen yet');
    return this.#subscription as T;
  }

  override on(): never {
    throw new Error('The JetStream transport has no events of its own');
  }
}

interface Route {
  readonly filters: readonly string[];
  readonly callback: MessageHandler;
}

/** A pattern becomes path filters once, at the start. */
function route({ name, callback }: { name: string; callback: MessageHandler }): Route {
  if (!callback.isEventHandler) {
    throw new Error(`${name}: events have no reply, use @EventPattern instead of @MessagePattern`);
  }
  return { filters: parseFilters(name), callback };
}

/** Runs every handler that takes the event, one after another; all of them have to succeed. */
async function run(routes: readonly Route[], event: BusEvent, delivery: Delivery): Promise<void> {
  const context = new JetStreamContext(event, delivery);
  for (const { filters, callback } of routes) {
    if (!filters.some((filter) => matchesFilter(filter, event.path))) continue;
    const result: unknown = await callback(event.message, context);
    if (isObservable(result)) await lastValueFrom(result, { defaultValue: undefined });
  }
}
