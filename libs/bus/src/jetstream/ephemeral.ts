/**
 * Ephemeral events: sent on by core NATS to whoever listens now, stored nowhere (docs/protocols/events.md,
 * "Words").
 */
import { deadline, PermissionViolationError } from '@nats-io/nats-core';
import type { MsgHdrs, NatsConnection } from '@nats-io/transport-node';
import { ephemeralSubject, parseEphemeralSubject } from '@posthorn/contracts';
import type { BusObserver, EphemeralHandler, EphemeralInterest } from '../port.js';
import { SubjectRefusal } from './acknowledgements.js';
import type { DurableParts } from './durable.js';
import { type EventReader, isRejection } from './event-reader.js';
import { headersOf } from './headers.js';
import type { InFlight } from './in-flight.js';

export interface EphemeralParts {
  readonly nc: NatsConnection;
  readonly reader: EventReader;
  readonly observer: BusObserver;
  readonly log: DurableParts['log'];
}

/** See `Bus.ephemeral`. */
export function followEphemeral(
  { nc, reader, observer, log }: EphemeralParts,
  { audience, filter }: EphemeralInterest,
  handler: EphemeralHandler,
): { close(): void } {
  const take = (subject: string, headers: MsgHdrs | undefined, data: Uint8Array): void => {
    const place = parseEphemeralSubject(subject);
    const event = place ? reader.readEphemeral(place, headers, data) : { reason: 'no_topic' as const };
    if (isRejection(event)) {
      observer.dropped(event.reason);
      return;
    }
    observer.delivered('global');
    try {
      handler(event);
    } catch (error) {
      // A throw would reach nats.js, which then stops reading: every subscription of the process would go silent.
      log('error', 'a handler of ephemeral events threw', { path: event.path, error: String(error) });
    }
  };
  const subscription = nc.subscribe(ephemeralSubject(audience, filter), {
    callback: (error, msg) => {
      if (error) log('error', 'an ephemeral subscription was refused', { filter, error: String(error) });
      else take(msg.subject, headersOf(msg), msg.data);
    },
  });
  return {
    close: () => {
      if (!subscription.isClosed() && !nc.isClosed()) subscription.unsubscribe();
    },
  };
}

/** Sends ephemeral events. */
export class EphemeralSender {
  readonly #nc: NatsConnection;
  readonly #inFlight: InFlight;
  /** The round trip of this turn. */
  #next: Promise<ReadonlySet<string>> | undefined;
  /** What the server has refused, for each round trip that is under way. */
  readonly #refused = new Set<Set<string>>();

  constructor(nc: NatsConnection, inFlight: InFlight) {
    this.#nc = nc;
    this.#inFlight = inFlight;
    void this.#follow();
  }

  /**
   * Resolves once the server has the event: it has answered a ping that was sent after it.
   * @param timeout how long that may take, in milliseconds
   * @throws where the server does not answer, or does not let this connection publish there
   */
  async send(subject: string, data: Uint8Array, headers: MsgHdrs, timeout: number): Promise<void> {
    this.#nc.publish(subject, data, { headers });
    this.#next ??= this.#roundTrip(timeout);
    const refused = await this.#next;
    if (refused.has(subject)) throw new SubjectRefusal();
  }

  /** One for all who send in the same turn: NATS keeps the order of one connection. */
  async #roundTrip(timeout: number): Promise<ReadonlySet<string>> {
    const refused = new Set<string>();
    this.#refused.add(refused);
    try {
      await new Promise(setImmediate);
      this.#next = undefined;
      await deadline(this.#inFlight.untilLost(this.#nc.flush()), timeout);
      // The server says what it refuses before it answers; here that takes another turn.
      await new Promise(setImmediate);
      return refused;
    } finally {
      this.#refused.delete(refused);
    }
  }

  /** Ends with the connection. */
  async #follow(): Promise<void> {
    for await (const status of this.#nc.status()) {
      if (status.type !== 'error' || !(status.error instanceof PermissionViolationError)) continue;
      if (status.error.operation !== 'publish') continue;
      for (const refused of this.#refused) refused.add(status.error.subject);
    }
  }
}
