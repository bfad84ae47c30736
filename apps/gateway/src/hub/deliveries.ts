/**
 * The spans of events on their way out: one for each traced event, from its copy to the write, however many connections
 * and feeds of this gateway it is for.
 */

import { attributesOf, nameOf } from '@posthorn/bus/platform';
import { isSampled, type Span, type Tracer } from '@posthorn/contracts';
import type { Feed, FeedEvent } from './feed.js';
import type { Turn } from './turn.js';

/** A traced event that is on its way to connections. */
export interface Delivery {
  readonly key: string;
  readonly span: Span;
  connections: number;
  /** Feeds that have it and whose connections were not written to yet. */
  feeds: number;
}

export class Deliveries {
  readonly #tracer: Tracer;
  readonly #turn: Turn;
  /** By the event's trace context and id. */
  readonly #open = new Map<string, Delivery>();

  constructor(tracer: Tracer, turn: Turn) {
    this.#tracer = tracer;
    this.#turn = turn;
  }

  /** Takes note that a feed is about to get an event: undefined where that is not traced. */
  begin(event: FeedEvent, feed: Feed): Delivery | undefined {
    const delivery = isSampled(event.traceparent) ? this.#begin(event) : undefined;
    if (!delivery) return undefined;
    delivery.connections += feed.listeners;
    delivery.feeds += 1;
    return delivery;
  }

  /** Follows what the feed has got until it is written. */
  follow(delivery: Delivery): void {
    // Batches of this event are before this one, and what they put into outboxes is written before its own.
    this.#turn.batch({ flush: () => this.#turn.outbox({ flush: () => this.#written(delivery) }) });
  }

  #begin(event: FeedEvent): Delivery | undefined {
    const key = keyOf(event);
    const open = this.#open.get(key);
    if (open) return open;
    const span = this.#tracer.start(nameOf('receive', event.topic), {
      kind: 'consumer',
      parent: event.traceparent,
      attributes: attributesOf('receive', event),
    });
    if (!span) return undefined;
    const delivery = { key, span, connections: 0, feeds: 0 };
    this.#open.set(key, delivery);
    return delivery;
  }

  #written(delivery: Delivery): void {
    delivery.feeds -= 1;
    if (delivery.feeds > 0) return;
    this.#open.delete(delivery.key);
    delivery.span.set({ 'posthorn.connections': delivery.connections });
    delivery.span.end();
  }
}

function keyOf({ traceparent, id }: FeedEvent): string {
  return `${traceparent} ${id}`;
}
