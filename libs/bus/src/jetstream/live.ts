/**
 * Live subscriptions: a core NATS subscription on the copies that a stream republishes, kept in the order of
 * the stream (docs/protocols/events.md, "Order, gaps, positions").
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import { liveSubject, type Position, type StoredSubject, storedSubject } from '@posthorn/contracts';
import type { BusObserver, DropReason, Interest, LiveHandler, LiveSubscription } from '../port.js';
import type { DurableParts } from './durable.js';
import type { Epochs } from './epochs.js';
import { type EventReader, isRejection, readCopySequence } from './event-reader.js';
import { headersOf } from './headers.js';
import type { Horizon } from './horizon.js';
import { Order } from './order.js';

export interface LiveParts {
  readonly nc: NatsConnection;
  readonly reader: EventReader;
  readonly epochs: Epochs;
  readonly horizon: Horizon;
  readonly instance: string;
  readonly observer: BusObserver;
  readonly log: DurableParts['log'];
}

export function subscribeLive(parts: LiveParts, interest: Interest, handler: LiveHandler): LiveSubscription {
  const { audience, scope, filter } = interest;
  const { nc, reader, epochs, observer, instance } = parts;
  const prefix = liveSubject(audience, scope, instance, '');
  const storedPrefix = storedSubject(audience, scope, instance, '');
  let order = new Order(0);
  /** The epoch that `order` belongs to. */
  let epoch = '';
  /** Copies that came before the place of the beginning was known, then undefined. */
  let held: Msg[] | undefined = [];
  let subscription: Subscription | undefined;
  let closed = false;

  const take = (msg: Msg): void => {
    if (closed) return;
    if (held) {
      held.push(msg);
      return;
    }
    const reason = pass(msg);
    if (reason) observer.dropped(reason);
  };

  /** Passes a copy on, or says why not. */
  const pass = (msg: Msg): DropReason | undefined => {
    const path = msg.subject.slice(prefix.length);
    const headers = headersOf(msg);
    const copy = readCopySequence(headers, scope, storedPrefix + path);
    if (!copy) return 'unsequenced';
    if (epoch !== epochs.of(scope)) {
      // Another stream under the same name: its sequences begin anew.
      epoch = epochs.of(scope);
      order = new Order(0);
    }
    const verdict = order.judge(path, copy.sequence, copy.previous);
    if (verdict === 'late') return 'late';
    if (verdict === 'gap') observer.gap();
    const source: StoredSubject = { audience, scope, instance: scope === 'local' ? instance : null, path };
    const event = reader.read(source, { epoch, sequence: copy.sequence }, headers, msg.data);
    if (isRejection(event)) return event.reason;
    observer.delivered(scope);
    try {
      handler(event);
    } catch (error) {
      // A throw would reach nats.js, which then stops reading: every subscription of the process would go silent.
      parts.log('error', 'a live handler threw', { path, error: String(error) });
    }
    return undefined;
  };

  const start = async (): Promise<Position> => {
    // Subscribed first, asked second: what is stored in between is heard and held.
    subscription = nc.subscribe(prefix + filter, {
      callback: (error, msg) => {
        if (error) parts.log('error', 'a live subscription was refused', { filter, error: String(error) });
        else take(msg);
      },
    });
    try {
      const sequence = await parts.horizon.ask();
      epoch = epochs.of(scope);
      const position = { epoch, sequence };
      order = new Order(sequence);
      // The caller learns the beginning before it gets the first event.
      setImmediate(() => {
        const waiting = held ?? [];
        held = undefined;
        for (const msg of waiting) take(msg);
      });
      return position;
    } catch (error) {
      close();
      throw error;
    }
  };

  const close = (): void => {
    closed = true;
    held = undefined;
    if (subscription && !subscription.isClosed() && !nc.isClosed()) subscription.unsubscribe();
  };

  const started = start();
  started.catch(() => {});
  return { started, close };
}
