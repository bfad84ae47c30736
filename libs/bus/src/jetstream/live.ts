/**
 * Live subscriptions: a core NATS subscription on the copies that a stream republishes, kept in the order of
 * the stream (docs/protocols/events.md, "Order, gaps, positions").
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import { liveSubject, type Position, type StoredSubject, storedSubject } from '@posthorn/contracts';
import type { BusObserver, Interest, LiveHandler, LiveSubscription } from '../port.js';
import type { Epochs } from './epochs.js';
import { type EventReader, isRejection, readCopySequence } from './event-reader.js';
import type { Horizon } from './horizon.js';
import { Order } from './order.js';

export interface LiveParts {
  readonly nc: NatsConnection;
  readonly reader: EventReader;
  readonly epochs: Epochs;
  readonly horizon: Horizon;
  readonly instance: string;
  readonly observer: BusObserver;
}

export function subscribeLive(parts: LiveParts, interest: Interest, handler: LiveHandler): LiveSubscription {
  const { audience, scope, filter } = interest;
  const { nc, reader, epochs, observer, instance } = parts;
  const prefix = liveSubject(audience, scope, instance, '');
  const storedPrefix = storedSubject(audience, scope, instance, '');
  let order: Order | undefined;
  /** Copies that came before the place of the beginning was known, then undefined. */
  let held: Msg[] | undefined = [];
  let subscription: Subscription | undefined;
  let closed = false;

  const take = (msg: Msg): void => {
    if (closed) return;
    if (held || !order) {
      held?.push(msg);
      return;
    }
    const path = msg.subject.slice(prefix.length);
    const copy = readCopySequence(msg.headers, scope, storedPrefix + path);
    if (!copy) return observer.dropped('unsequenced');
    const verdict = order.judge(path, copy.sequence, copy.previous);
    if (verdict === 'late') return observer.dropped('late');
    if (verdict === 'gap') observer.gap();
    const source: StoredSubject = {
      audience,
      scope,
      instance: scope === 'local' ? instance : null,
      path,
    };
    const position = { epoch: epochs.of(scope), sequence: copy.sequence };
    const event = reader.read(source, position, msg.headers, msg.data);
    if (isRejection(event)) return observer.dropped(event.reason);
    observer.delivered(scope);
    handler(event);
  };

  const start = async (): Promise<Position> => {
    // Subscribed first, asked second: what is stored in between is heard and held.
    subscription = nc.subscribe(prefix + filter, {
      callback: (error, msg) => (error ? undefined : take(msg)),
    });
    try {
      const sequence = await parts.horizon.ask();
      const position = { epoch: epochs.of(scope), sequence };
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
