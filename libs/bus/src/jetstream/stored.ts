/**
 * Stored messages of a filter, in the order of the stream (docs/protocols/events.md, "Order, gaps, positions").
 *
 * A few are asked one by one of the stream's leader: no consumer is made for them. What goes on is pulled
 * through an ephemeral consumer, and held against the leader: one that lives where the stream's leader is reads
 * what the leader has; of one on a follower each jump in its sequences is asked of the leader, which is slower
 * by far. Only the leader's own answer says that nothing follows.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AckPolicy,
  type Consumer,
  type ConsumerInfo,
  DeliverPolicy,
  type JetStreamClient,
  type JsMsg,
  ReplayPolicy,
} from '@nats-io/jetstream';
import { deadline } from '@nats-io/nats-core';
import { type MsgHdrs, nanos } from '@nats-io/transport-node';
import { ProblemError, type Scope, STREAMS } from '@posthorn/contracts';
import type { Epochs } from './epochs.js';
import { headersOf } from './headers.js';
import type { Extent, Horizon } from './horizon.js';
import { type LeaderParts, nextStored, storedHeaders } from './leader.js';

export interface StoredParts extends LeaderParts {
  readonly js: JetStreamClient;
  readonly epochs: Epochs;
  readonly horizon: Horizon;
  /** How long the leader may leave a reading without an answer, in milliseconds. Default 15,000. */
  readonly patience?: number | undefined;
}

/** What to read. */
export interface Selection {
  readonly scope: Scope;
  /** The subjects, as NATS filters them. */
  readonly subject: string;
  /** Leaves payloads out where a consumer reads: for whoever only wants to know what there is. */
  readonly headersOnly?: boolean;
}

/** A stored message, by whichever way it came. */
export interface Stored {
  readonly sequence: number;
  readonly subject: string;
  readonly headers: MsgHdrs | undefined;
  readonly data: Uint8Array;
  /** When it was stored, in milliseconds since 1970. */
  readonly storedAt: () => number;
}

/** Whatever is stored up to a place and was not in the parts before. */
export interface StoredPage {
  readonly messages: readonly Stored[];
  readonly upTo: number;
  /** The oldest sequence that the stream held after the page was read: what lay before it may be missing. */
  readonly first: number;
}

/** Events that are asked for one by one before a consumer is made, which costs a server some 2 ms. */
const WALK = 32;
/** Messages in one pull: with the largest payloads there are, 64 MiB; and without payloads. */
const PULL = 64;
const PULL_HEADERS = 1_000;
/** Tries to get a consumer onto the leader: the server places it on any of the stream's replicas. */
const PLACINGS = 5;
/** How long a pull may take, in milliseconds: the consumer may have counted what was removed since. */
const PULL_TIME = 2_000;
/** How long the server keeps a consumer that nobody pulls from, in milliseconds: longer than a lost connection. */
const CONSUMER_IDLE = 10_000;
/** How long one question may take, in milliseconds: whoever died with it on its hands never answers. */
const QUESTION = 2_000;
/** The pause before it is asked again, and when that ends, in milliseconds: servers elect a leader in 4 to 9 s. */
const PAUSE = 100;
const PATIENCE = 15_000;

/**
 * Reads page by page. A generator: the next page is read when the caller asks for it, so that a slow caller
 * costs no memory, and whoever stops asking leaves no consumer behind.
 * @param after the place after which to read
 * @param until the place up to which to read, asked again before each page
 * @throws ProblemError `unavailable` where the leader has not answered for some seconds, or the epoch changed
 */
export async function* readStored(
  parts: StoredParts,
  selection: Selection,
  after: number,
  until: () => number,
): AsyncGenerator<StoredPage, void, void> {
  const reading = new Reading(parts, selection, after);
  try {
    for (let end = until(); reading.place < end; end = until()) yield await reading.next(end);
  } finally {
    reading.close();
  }
}

class Reading {
  /** Everything up to here was read. */
  place: number;
  readonly #parts: StoredParts;
  readonly #selection: Selection;
  readonly #epoch: string;
  #pulled: Pulled | undefined;
  #walked = 0;

  constructor(parts: StoredParts, selection: Selection, after: number) {
    this.#parts = parts;
    this.#selection = selection;
    this.#epoch = parts.epochs.of(selection.scope);
    this.place = after;
  }

  async next(until: number): Promise<StoredPage> {
    const { epochs } = this.#parts;
    const messages = this.#walked < WALK ? await this.#walk(until) : await this.#pull(until);
    const { first } = await this.#extent();
    if (epochs.of(this.#selection.scope) !== this.#epoch) {
      throw new ProblemError('unavailable', 'The event store was replaced while it was read');
    }
    return { messages, upTo: this.place, first };
  }

  close(): void {
    this.#pulled?.close();
    this.#pulled = undefined;
  }

  async #walk(until: number): Promise<Stored[]> {
    const { scope, subject } = this.#selection;
    const found: Stored[] = [];
    for (; this.#walked < WALK; this.#walked++) {
      const stored = await this.#ask(() => nextStored(this.#parts, scope, subject, this.place));
      if (!stored || stored.seq > until) {
        this.place = until;
        return found;
      }
      this.place = stored.seq;
      found.push({
        sequence: stored.seq,
        subject: stored.subject,
        headers: storedHeaders(stored),
        data: stored.data,
        storedAt: () => stored.time.getTime(),
      });
    }
    return found;
  }

  /** One pull, as far as the leader agrees. What goes wrong here is left to the leader. */
  async #pull(until: number): Promise<Stored[]> {
    try {
      this.#pulled ??= await this.#openPulled();
      const messages = await this.#pulled.next();
      const beyond = messages.findIndex(({ seq }) => seq > until);
      // The first beyond the end shows that nothing is left before it.
      const wanted = beyond === -1 ? messages : messages.slice(0, beyond + 1);
      const proven = await this.#prove(wanted);
      const found = wanted.slice(0, proven).filter(({ seq }) => seq <= until);
      this.place = found.at(-1)?.seq ?? this.place;
      if (beyond !== -1 && proven === wanted.length) this.place = until;
      // A consumer that has sent what lies beyond the end would not send it again where the end moves on.
      if (beyond !== -1 || proven < wanted.length || this.#pulled.atEnd) this.#backToLeader();
      return found.map((message) => ({
        sequence: message.seq,
        subject: message.subject,
        headers: headersOf(message),
        data: message.data,
        storedAt: () => Number(message.timestampNanos / 1_000_000n),
      }));
    } catch {
      // The connection, or the consumer with its server, is gone.
      this.#backToLeader();
      return [];
    }
  }

  #backToLeader(): void {
    this.close();
    this.#walked = 0;
  }

  async #openPulled(): Promise<Pulled> {
    const { leader } = await this.#extent();
    for (let placing = 1; ; placing++) {
      const pulled = await Pulled.open(this.#parts, this.#selection, this.place);
      if (pulled.host === leader || placing === PLACINGS) return pulled;
      pulled.close();
    }
  }

  #extent(): Promise<Extent> {
    return this.#ask(() => this.#parts.horizon.extent());
  }

  /** How many of these messages, from the first, have nothing stored between them. */
  async #prove(messages: readonly JsMsg[]): Promise<number> {
    const { scope, subject } = this.#selection;
    // Asked after the messages came: whoever leads now had what it sent, and sent what it had.
    if (this.#pulled?.host === (await this.#extent()).leader) return messages.length;
    const follows = await Promise.all(
      messages.map(async ({ seq }, i) => {
        const before = messages[i - 1]?.seq ?? this.place;
        if (seq <= before + 1) return seq > before;
        const stored = await nextStored(this.#parts, scope, subject, before);
        // Beyond it or null: it was removed since.
        return !stored || stored.seq >= seq;
      }),
    );
    const wrong = follows.indexOf(false);
    return wrong === -1 ? messages.length : wrong;
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    const { inFlight, patience = PATIENCE } = this.#parts;
    const end = Date.now() + patience;
    for (;;) {
      try {
        return await deadline(question(), QUESTION);
      } catch (cause) {
        if (Date.now() > end || inFlight.closed) {
          throw new ProblemError('unavailable', 'The event store does not answer', { cause });
        }
        await sleep(PAUSE);
      }
    }
  }
}

/** An ephemeral consumer without acknowledgement, pulled from batch by batch. */
class Pulled {
  readonly #parts: StoredParts;
  readonly #consumer: Consumer;
  /** How many messages one pull asks for. */
  readonly #batch: number;
  /** The name of the server that it lives on; undefined outside a cluster. */
  readonly host: string | undefined;
  /** How many messages the consumer still has, by its own account. */
  #pending: number;
  /** How many messages the consumer has sent. */
  #sent = 0;

  private constructor(parts: StoredParts, consumer: Consumer, info: ConsumerInfo, batch: number) {
    this.#parts = parts;
    this.#consumer = consumer;
    this.#batch = batch;
    this.host = info.cluster?.leader;
    this.#pending = info.num_pending;
  }

  static async open(
    parts: StoredParts,
    { scope, subject, headersOnly = false }: Selection,
    after: number,
  ): Promise<Pulled> {
    const { js, jsm, inFlight } = parts;
    const adding = inFlight.untilLost(
      jsm.consumers.add(STREAMS[scope].name, {
        name: `history-${randomUUID()}`,
        filter_subject: subject,
        headers_only: headersOnly,
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: after + 1,
        ack_policy: AckPolicy.None,
        replay_policy: ReplayPolicy.Instant,
        inactive_threshold: nanos(CONSUMER_IDLE),
        mem_storage: true,
        num_replicas: 1,
      }),
    );
    const info = await deadline(adding, QUESTION);
    const batch = headersOnly ? PULL_HEADERS : PULL;
    return new Pulled(parts, js.consumers.getConsumerFromInfo(info), info, batch);
  }

  get atEnd(): boolean {
    return this.#pending === 0;
  }

  /** The next messages, up to the first that was lost on the way: that is the consumer's end. */
  async next(): Promise<JsMsg[]> {
    if (this.atEnd) return [];
    const wanted = Math.min(this.#batch, this.#pending);
    const messages = await this.#consumer.fetch({ max_messages: wanted, expires: PULL_TIME });
    const taken: JsMsg[] = [];
    const take = async () => {
      for await (const message of messages) taken.push(message);
    };
    try {
      const tooLong = new AbortController();
      await Promise.race([
        this.#parts.inFlight.untilLost(take()),
        sleep(2 * PULL_TIME, undefined, { signal: tooLong.signal }).catch(() => {}),
      ]).finally(() => tooLong.abort());
    } finally {
      messages.stop();
    }
    const lost = taken.findIndex(({ info }, i) => info.deliverySequence !== this.#sent + i + 1);
    const heard = lost === -1 ? taken : taken.slice(0, lost);
    this.#sent += heard.length;
    this.#pending = heard.length < wanted ? 0 : heard.at(-1)!.info.pending;
    return heard;
  }

  /** Not waited for: where the server does not hear it, it removes the idle consumer by itself. */
  close(): void {
    this.#consumer.delete().catch(() => {});
  }
}
