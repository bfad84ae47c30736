/**
 * Live subscriptions: a core NATS subscription on the copies that a stream republishes, kept in the order of
 * the stream, topic by topic; what is missing is read from the stream's leader before anything later goes out
 * (docs/protocols/events.md, "Order, gaps, positions").
 */
import type { JetStreamManager, StoredMsg } from '@nats-io/jetstream';
import type { Msg, MsgHdrs, NatsConnection, Subscription } from '@nats-io/transport-node';
import { liveSubject, type Position, type StoredSubject, storedSubject } from '@posthorn/contracts';
import type { BusObserver, DropReason, Interest, LiveHandler, LiveSubscription } from '../port.js';
import type { DurableParts } from './durable.js';
import type { Epochs } from './epochs.js';
import { type EventReader, isRejection, readCopySequence } from './event-reader.js';
import { headersOf } from './headers.js';
import type { Horizon } from './horizon.js';
import type { InFlight } from './in-flight.js';
import { Lane } from './lane.js';
import { nextStored, storedHeaders } from './leader.js';

export interface LiveParts {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly inFlight: InFlight;
  readonly reader: EventReader;
  readonly epochs: Epochs;
  readonly horizon: Horizon;
  readonly instance: string;
  readonly observer: BusObserver;
  readonly log: DurableParts['log'];
}

/** How long a copy may be overtaken by a later one before the stream is asked for it, in milliseconds. */
const GRACE = 20;
/** The pause before a leader that did not answer is asked again, in milliseconds. */
const PAUSE = 250;

/** What a copy brings beside its place. */
interface Content {
  readonly headers: MsgHdrs | undefined;
  readonly data: Uint8Array;
}

export function subscribeLive(parts: LiveParts, interest: Interest, handler: LiveHandler): LiveSubscription {
  const { audience, scope, filter } = interest;
  const { nc, reader, epochs, observer, instance } = parts;
  const prefix = liveSubject(audience, scope, instance, '');
  const storedPrefix = storedSubject(audience, scope, instance, '');
  const lanes = new Map<string, Lane<Content>>();
  /** Where the lanes begin, and the epoch that they belong to. */
  let floor = 0;
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

  /** Passes a copy on, keeps it for later, or says why neither. */
  const pass = (msg: Msg): DropReason | undefined => {
    const path = msg.subject.slice(prefix.length);
    const headers = headersOf(msg);
    const copy = readCopySequence(headers, scope, storedPrefix + path);
    if (!copy) return 'unsequenced';
    const lane = laneOf(path);
    const wasBehind = lane.behind;
    const item = { headers, data: msg.data };
    const verdict = lane.offer({ ...copy, item });
    if (verdict === 'late') return 'late';
    if (verdict === 'next') return deliver(path, copy.sequence, item);
    if (wasBehind) {
      // It may be the very one that the others wait for.
      release(path, lane);
    } else {
      observer.gap();
      void repair(path, lane);
    }
    return undefined;
  };

  const laneOf = (path: string): Lane<Content> => {
    if (epoch !== epochs.of(scope)) {
      // Another stream under the same name: its sequences begin anew.
      epoch = epochs.of(scope);
      floor = 0;
      lanes.clear();
    }
    let lane = lanes.get(path);
    if (!lane) {
      lane = new Lane(floor);
      lanes.set(path, lane);
    }
    return lane;
  };

  const release = (path: string, lane: Lane<Content>): void => {
    for (const { sequence, item } of lane.release()) {
      const reason = deliver(path, sequence, item);
      if (reason) observer.dropped(reason);
    }
  };

  /** Reads what is missing, event by event, until nothing is. Ends with the subscription or its epoch. */
  const repair = async (path: string, lane: Lane<Content>): Promise<void> => {
    await pause(GRACE);
    while (!closed && lanes.get(path) === lane && lane.behind) {
      const after = lane.last;
      let stored: StoredMsg | null;
      try {
        stored = await nextStored(parts, scope, storedPrefix + path, after);
      } catch {
        // NATS or the stream's leader is away: nothing later goes out before it has said what is missing.
        await pause(PAUSE);
        continue;
      }
      // What was missing may have come while the leader was asked.
      if (closed || lanes.get(path) !== lane || lane.last !== after) continue;
      if (lane.learn(stored?.seq ?? null) && stored) {
        const reason = deliver(path, stored.seq, { headers: storedHeaders(stored), data: stored.data });
        if (reason) observer.dropped(reason);
      }
      release(path, lane);
    }
  };

  const deliver = (path: string, sequence: number, { headers, data }: Content): DropReason | undefined => {
    const source: StoredSubject = { audience, scope, instance: scope === 'local' ? instance : null, path };
    const event = reader.read(source, { epoch, sequence }, headers, data);
    if (isRejection(event)) return event.reason;
    observer.delivered(scope);
    try {
      if (!closed) handler(event);
    } catch (error) {
      // A throw would reach nats.js, which then stops reading: every subscription of the process would go silent.
      parts.log('error', 'a live handler threw', { path, error: String(error) });
    }
    return undefined;
  };

  const start = async (): Promise<Position> => {
    // Subscribed first, asked second: what is stored in between is heard and held.
    subscription = nc.subscribe(liveSubject(audience, scope, instance, filter), {
      callback: (error, msg) => {
        if (error) parts.log('error', 'a live subscription was refused', { filter, error: String(error) });
        else take(msg);
      },
    });
    try {
      const sequence = await parts.horizon.ask();
      epoch = epochs.of(scope);
      const position = { epoch, sequence };
      floor = sequence;
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

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
