/**
 * Live subscriptions: a core NATS subscription on the copies that a stream republishes, kept in the order of
 * the stream, topic by topic; what is missing is read from the stream's leader before anything later goes out,
 * and what was never heard of is found by checks (docs/protocols/events.md, "Order, gaps, positions").
 *
 * A topic is checked by one small question: what does the leader hold on its subject after the last that was
 * passed on? A filter with wildcards is checked by reading what is stored since the last check, without
 * payloads, and looking each up in its topic's lane. That costs what the filter takes, once more and without
 * payloads, and one question where it took nothing. What seems cheaper is not right: to count what is stored
 * (a consumer's `num_pending`) against what was passed on has no end to count up to while events come in, and
 * a delete evens out a loss; asking for the last of each subject costs what the filter has ever taken, and a
 * multi-subject direct get, from 2.11 on, is answered by followers too, of which an empty answer proves nothing.
 */
import type { StoredMsg } from '@nats-io/jetstream';
import type { Msg, MsgHdrs, NatsConnection, Subscription } from '@nats-io/transport-node';
import {
  liveSubject,
  type Position,
  ProblemError,
  type Scope,
  type StoredSubject,
  storedSubject,
} from '@posthorn/contracts';
import type { BusObserver, DropReason, Interest, LiveHandler, LiveSubscription } from '../port.js';
import type { DurableParts } from './durable.js';
import { type EventReader, isRejection, readCopySequence } from './event-reader.js';
import { headersOf } from './headers.js';
import { Lane } from './lane.js';
import { nextStored, storedHeaders } from './leader.js';
import { readStored, type StoredParts } from './stored.js';
import { Verification } from './verification.js';
import type { Watch, Watched } from './watch.js';

export interface LiveParts extends StoredParts {
  readonly nc: NatsConnection;
  readonly reader: EventReader;
  readonly watch: Watch;
  readonly instance: string;
  readonly observer: BusObserver;
  readonly log: DurableParts['log'];
}

/** How long a copy may be overtaken by a later one before the stream is asked for it, in milliseconds. */
const GRACE = 20;
/** The pause before a leader that did not answer is asked again, in milliseconds. */
const PAUSE = 250;
/** How long a lane is suspected before it is put back, in intervals between checks. */
const PATIENCE = 0.9;

/** What a copy brings beside its place. */
interface Content {
  readonly headers: MsgHdrs | undefined;
  readonly data: Uint8Array;
}

/** A lane that seems to have passed on what the stream does not have. */
interface Suspect {
  /** Where it goes back to if so. */
  readonly place: number;
  /** When that was first seen. */
  readonly since: number;
}

export function subscribeLive(parts: LiveParts, interest: Interest, handler: LiveHandler): LiveSubscription {
  return new Live(parts, interest, handler);
}

class Live implements LiveSubscription, Watched {
  readonly started: Promise<Position>;
  readonly scope: Scope;
  readonly #parts: LiveParts;
  readonly #interest: Interest;
  readonly #handler: LiveHandler;
  readonly #prefix: string;
  readonly #storedPrefix: string;
  readonly #exact: boolean;
  readonly #lanes = new Map<string, Lane<Content>>();
  readonly #repairs = new Map<Lane<Content>, Promise<void>>();
  readonly #verification = new Verification((upTo) => this.#complete(upTo));
  #suspects = new Map<string, Suspect>();
  /** The epoch that all places here belong to. */
  #epoch = '';
  /** Whether the stream was restored, and where it ends since is not known yet. */
  #restored = false;
  /** Where the subscription began. */
  #floor = 0;
  /** Everything up to here was passed on, by the leader's word. */
  #verified = 0;
  /** Copies that came before the place of the beginning was known, then undefined. */
  #held: Msg[] | undefined = [];
  readonly #flowing: Promise<void>;
  #subscription: Subscription | undefined;
  #closed = false;
  /** Who waits for a repair, to be told that the leader does not answer. */
  readonly #unanswered = new Set<(error: unknown) => void>();

  constructor(parts: LiveParts, interest: Interest, handler: LiveHandler) {
    const { audience, scope, filter } = interest;
    this.#parts = parts;
    this.#interest = interest;
    this.#handler = handler;
    this.scope = scope;
    this.#prefix = liveSubject(audience, scope, parts.instance, '');
    this.#storedPrefix = storedSubject(audience, scope, parts.instance, '');
    this.#exact = !/(^|\.)(\*|>)(\.|$)/.test(filter);
    this.started = this.#start();
    // The caller learns the beginning before it gets the first event.
    this.#flowing = this.started.then(() => new Promise(setImmediate)).then(() => this.#flow());
    this.#flowing.catch(() => {});
  }

  async verify({ epoch, sequence }: Position): Promise<void> {
    await this.#flowing;
    this.#followEpoch();
    if (this.#closed) throw new ProblemError('unavailable', 'The subscription has ended');
    if (epoch !== this.#epoch) throw new ProblemError('unavailable', 'The event store was replaced');
    if (!this.#isComplete(sequence)) await this.#verification.upTo(sequence);
  }

  get complete(): Position | undefined {
    if (!this.#epoch || this.#held) return undefined;
    this.#followEpoch();
    const lane = this.#exact ? this.#lanes.get(this.#interest.filter) : undefined;
    return { epoch: this.#epoch, sequence: Math.max(this.#verified, lane?.last ?? 0) };
  }

  async check(end: Position): Promise<void> {
    await this.#flowing;
    this.#followEpoch();
    const restored = this.#restored && end.epoch === this.#epoch;
    if (restored) {
      this.#restored = false;
      this.#floor = Math.min(this.#floor, end.sequence);
      this.#verified = Math.min(this.#verified, end.sequence);
    }
    await this.#retractForged(end.sequence, restored ? 0 : PATIENCE * this.#parts.watch.interval);
    await this.verify(end);
  }

  close(): void {
    const { nc, watch } = this.#parts;
    this.#closed = true;
    this.#held = undefined;
    watch.remove(this);
    if (this.#subscription && !this.#subscription.isClosed() && !nc.isClosed()) {
      this.#subscription.unsubscribe();
    }
  }

  async #start(): Promise<Position> {
    const { nc, horizon, epochs, instance, log } = this.#parts;
    const { audience, scope, filter } = this.#interest;
    // Subscribed first, asked second: what is stored in between is heard and held.
    this.#subscription = nc.subscribe(liveSubject(audience, scope, instance, filter), {
      callback: (error, msg) => {
        if (error) log('error', 'a live subscription was refused', { filter, error: String(error) });
        else this.#take(msg);
      },
    });
    try {
      const sequence = await horizon.ask();
      this.#epoch = epochs.of(scope);
      this.#floor = sequence;
      this.#verified = sequence;
      return { epoch: this.#epoch, sequence };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #flow(): void {
    const waiting = this.#held ?? [];
    this.#held = undefined;
    if (this.#closed) return;
    for (const msg of waiting) this.#take(msg);
    this.#parts.watch.add(this);
  }

  #take(msg: Msg): void {
    if (this.#closed) return;
    if (this.#held) {
      this.#held.push(msg);
      return;
    }
    this.#count(this.#pass(msg));
  }

  #count(reason: DropReason | undefined): void {
    if (reason) this.#parts.observer.dropped(reason);
  }

  /** Passes a copy on, keeps it for later, or says why neither. */
  #pass(msg: Msg): DropReason | undefined {
    // JetStream delivers a stored message wherever a consumer wants it, under the subject that it was stored on.
    if (!msg.subject.startsWith(this.#prefix)) return 'unsequenced';
    const path = msg.subject.slice(this.#prefix.length);
    const headers = headersOf(msg);
    const copy = readCopySequence(headers, this.scope, this.#storedPrefix + path);
    if (!copy) return 'unsequenced';
    this.#followEpoch();
    const lane = this.#laneOf(path);
    const wasBehind = lane.behind;
    const item = { headers, data: msg.data };
    const verdict = lane.offer({ ...copy, item });
    if (verdict === 'late') return 'late';
    if (verdict === 'next') return this.#deliver(path, copy.sequence, item);
    if (wasBehind) {
      // It may be the very one that the others wait for.
      this.#release(path, lane);
    } else if (copy.previous > 0) {
      this.#parts.observer.gap();
      void this.#repair(path, lane, GRACE);
    } else {
      // A copy that nothing was before has overtaken none: there is nothing to wait for.
      void this.#repair(path, lane, 0);
    }
    return undefined;
  }

  #followEpoch(): void {
    const epoch = this.#parts.epochs.of(this.scope);
    if (epoch === this.#epoch) return;
    const [created] = this.#epoch.split('z');
    // A stream that was restored goes on from where it was put back to: the next check learns where that is.
    this.#restored = epoch.startsWith(`${created}z`);
    if (!this.#restored) {
      // Another stream under the same name: its sequences begin anew.
      this.#floor = 0;
      this.#verified = 0;
      this.#lanes.clear();
      this.#suspects.clear();
    }
    this.#epoch = epoch;
  }

  #laneOf(path: string): Lane<Content> {
    let lane = this.#lanes.get(path);
    if (!lane) {
      // One topic keeps its lane. Of a pattern those are forgotten that stand where all are complete.
      lane = this.#exact ? new Lane(this.#floor) : new Lane(this.#verified, this.#verified > this.#floor);
      this.#lanes.set(path, lane);
    }
    return lane;
  }

  #release(path: string, lane: Lane<Content>): void {
    for (const { sequence, item } of lane.release()) this.#count(this.#deliver(path, sequence, item));
  }

  /** Resolves when nothing is missing on a lane any more, or nobody wants to know. */
  async #repair(path: string, lane: Lane<Content>, grace: number): Promise<void> {
    if (this.#repairs.has(lane) || !lane.behind) return this.#repairs.get(lane);
    const repair = this.#readMissing(path, lane, grace);
    this.#repairs.set(lane, repair);
    return repair;
  }

  /** Reads what is missing, event by event, until nothing is. Ends with the subscription or its epoch. */
  async #readMissing(path: string, lane: Lane<Content>, grace: number): Promise<void> {
    const { observer } = this.#parts;
    observer.repairing(1);
    await pause(grace);
    const wanted = () => !this.#closed && this.#lanes.get(path) === lane;
    while (wanted() && lane.behind) {
      const last = lane.last;
      let stored: StoredMsg | null;
      try {
        stored = await nextStored(this.#parts, this.scope, this.#storedPrefix + path, this.#completeOn(lane));
      } catch (error) {
        // NATS or the stream's leader is away: nothing later goes out before it has said what is missing.
        observer.unanswered();
        for (const tell of this.#unanswered) tell(error);
        await pause(PAUSE);
        continue;
      }
      // What was missing may have come while the leader was asked.
      if (!wanted() || lane.last !== last) continue;
      if (lane.learn(stored?.seq ?? null) && stored) {
        observer.repaired();
        const content = { headers: storedHeaders(stored), data: stored.data };
        this.#count(this.#deliver(path, stored.seq, content));
      }
      this.#release(path, lane);
    }
    // In the very step that saw the end: who finds more missing from now on begins another.
    this.#repairs.delete(lane);
    observer.repairing(-1);
  }

  /** Up to where a lane is complete. The further on, the less the leader has to search. */
  #completeOn(lane: Lane<Content>): number {
    return this.#exact ? Math.max(lane.last, this.#verified) : lane.last;
  }

  #deliver(path: string, sequence: number, { headers, data }: Content): DropReason | undefined {
    const { reader, observer, instance, log } = this.#parts;
    const { audience, scope } = this.#interest;
    const source: StoredSubject = { audience, scope, instance: scope === 'local' ? instance : null, path };
    const event = reader.read(source, { epoch: this.#epoch, sequence }, headers, data);
    if (isRejection(event)) return event.reason;
    observer.delivered(scope);
    try {
      if (!this.#closed) this.#handler(event);
    } catch (error) {
      // A throw would reach nats.js, which then stops reading: every subscription of the process would go silent.
      log('error', 'a live handler threw', { path, error: String(error) });
    }
    return undefined;
  }

  /** Whether everything up to a place was passed on as far as is known here. */
  #isComplete(upTo: number): boolean {
    if (upTo <= this.#verified) return true;
    if (!this.#exact) return false;
    // What comes on one topic is passed on in order.
    const lane = this.#lanes.get(this.#interest.filter);
    return lane !== undefined && lane.last >= upTo;
  }

  async #complete(upTo: number): Promise<void> {
    const epoch = this.#epoch;
    const { horizon } = this.#parts;
    // Nothing can be said of what lies beyond the end.
    const place = upTo <= horizon.known ? upTo : Math.min(upTo, await horizon.ask());
    if (this.#exact) await this.#completeTopic(place);
    else await this.#completePattern(place);
    if (this.#closed) throw new ProblemError('unavailable', 'The subscription has ended');
    if (this.#epoch !== epoch) throw new ProblemError('unavailable', 'The event store was replaced');
  }

  async #completeTopic(upTo: number): Promise<void> {
    const path = this.#interest.filter;
    while (!this.#closed && !this.#isComplete(upTo)) {
      const lane = this.#laneOf(path);
      if (lane.behind) {
        await this.#repaired([[path, lane]]);
        continue;
      }
      const stored = await this.#ask(
        nextStored(this.#parts, this.scope, this.#storedPrefix + path, this.#completeOn(lane)),
      );
      if (this.#lanes.get(path) !== lane) return;
      if (!stored || stored.seq > upTo) this.#verified = Math.max(this.#verified, upTo);
      else if (stored.seq > lane.last) lane.hearOf(stored.seq);
    }
  }

  async #completePattern(upTo: number): Promise<void> {
    const epoch = this.#epoch;
    const selection = {
      scope: this.scope,
      subject: this.#storedPrefix + this.#interest.filter,
      headersOnly: true,
    };
    // Whoever asked is told soon that the leader does not answer, and asks again.
    const parts = { ...this.#parts, patience: 0 };
    for await (const { messages } of readStored(parts, selection, this.#verified, () => upTo)) {
      if (this.#closed || this.#epoch !== epoch) return;
      const behind = new Map<string, Lane<Content>>();
      for (const { subject, sequence } of messages) {
        const path = subject.slice(this.#storedPrefix.length);
        const lane = this.#laneOf(path);
        if (lane.last >= sequence) continue;
        lane.hearOf(sequence);
        behind.set(path, lane);
      }
      if (behind.size > 0) await this.#repaired(behind);
    }
    if (this.#closed || this.#epoch !== epoch) return;
    this.#verified = Math.max(this.#verified, upTo);
    for (const [path, lane] of this.#lanes) {
      if (lane.last <= this.#verified && !lane.behind) this.#lanes.delete(path);
    }
  }

  /** Resolves when nothing is missing on these lanes; rejects once the leader does not answer. */
  async #repaired(lanes: Iterable<[string, Lane<Content>]>): Promise<void> {
    const repairs = [...lanes].map(([path, lane]) => this.#repair(path, lane, GRACE));
    let tell = (_: unknown) => {};
    const unanswered = new Promise<never>((_, reject) => {
      tell = reject;
    });
    this.#unanswered.add(tell);
    try {
      await this.#ask(Promise.race([Promise.all(repairs), unanswered]));
    } finally {
      this.#unanswered.delete(tell);
    }
  }

  async #ask<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (cause) {
      throw new ProblemError('unavailable', 'The event store does not answer', { cause });
    }
  }

  /**
   * Puts lanes back that have passed on what lies beyond the end of the stream: a copy was forged, or the stream
   * restored, and such a lane would drop all that is stored from now on. A leader that was deposed and does not
   * know it yet may say the same, so the next check has to find it too.
   * @param patience milliseconds for which a lane is suspected before it is put back
   */
  async #retractForged(end: number, patience: number): Promise<void> {
    const beyond = [...this.#lanes].filter(([, lane]) => lane.last > end);
    const before = this.#suspects;
    this.#suspects = new Map();
    if (beyond.length === 0) return;
    const lasts = beyond.map(([, lane]) => lane.last);
    // On a busy topic copies were heard since the end was asked for.
    const now = await this.#parts.horizon.ask();
    for (const [i, [path, lane]] of beyond.entries()) {
      if (lasts[i]! <= now || this.#lanes.get(path) !== lane) continue;
      const suspect = before.get(path) ?? this.#suspect(lane, now);
      if (performance.now() - suspect.since < patience) {
        this.#suspects.set(path, suspect);
        continue;
      }
      lane.retract(suspect.place);
      lane.hearOf(now);
      void this.#repair(path, lane, 0);
    }
  }

  #suspect(lane: Lane<Content>, end: number): Suspect {
    // Of several forged copies in a row the first is not known any more.
    const place = lane.before <= end ? lane.before : Math.min(this.#verified, end);
    return { place, since: performance.now() };
  }
}

async function pause(ms: number): Promise<void> {
  if (ms === 0) return;
  await new Promise((resolve) => setTimeout(resolve, ms));
}
