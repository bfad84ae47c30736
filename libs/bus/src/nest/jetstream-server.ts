/**
 * A Nest transport on JetStream: a handler is `@EventPattern('community:join')`, its payload typed by the
 * catalogue (`EventPayload<'community:join'>`), its context a {@link JetStreamContext}.
 *
 * The handler's promise is the settlement: resolved means acknowledged, rejected means another try or a dead
 * letter by the policy in settlement.ts.
 */
import { type CustomTransportStrategy, type MessageHandler, Server } from '@nestjs/microservices';
import { type PayloadOf, parseFilters, parseTopic, type TopicName } from '@posthorn/contracts';
import { isObservable, lastValueFrom } from 'rxjs';
import type { Bus, BusEvent, Delivery, DurableOptions, DurableSubscription } from '../port.js';

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
  readonly #bus: Bus;
  readonly #options: JetStreamServerOptions;
  #subscription: DurableSubscription | undefined;

  constructor(bus: Bus, options: JetStreamServerOptions) {
    super();
    this.#bus = bus;
    this.#options = options;
  }

  /** Binds the durable consumer; calls back at once, since the stream may be created later. */
  listen(callback: (error?: unknown) => void): void {
    try {
      const handlers = this.#handlersByPath();
      const filters = [...handlers.keys()];
      this.#subscription = this.#bus.consume({ ...this.#options, filters }, (event, delivery) =>
        run(handlers.get(event.path), event, delivery),
      );
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

  /** Patterns become paths at the start, so that a message needs one look-up. */
  #handlersByPath(): Map<string, MessageHandler> {
    const handlers = new Map<string, MessageHandler>();
    for (const [name, handler] of this.messageHandlers) {
      if (!handler.isEventHandler) {
        throw new Error(`${name}: events have no reply, use @EventPattern instead of @MessagePattern`);
      }
      if (parseFilters(name).some((filter) => /[*>]/.test(filter))) {
        throw new Error(`${name}: a handler takes one topic, not a pattern`);
      }
      handlers.set(parseTopic(name).path, handler);
    }
    return handlers;
  }
}

async function run(handler: MessageHandler | undefined, event: BusEvent, delivery: Delivery): Promise<void> {
  // Where several handlers have one pattern, Nest's first one runs the others too, and all have to succeed.
  const result: unknown = await handler?.(event.message, new JetStreamContext(event, delivery));
  if (isObservable(result)) await lastValueFrom(result, { defaultValue: undefined });
}
