/**
 * The bus port: what apps, faces and the SDK ask of the event bus. Its one driver is JetStream
 * (`jetstream/jetstream-bus.ts`).
 */
import type { Cursor, Position, Scope, Topic } from '@posthorn/contracts';

/** An event on its way in. */
export interface Draft {
  readonly audience: string;
  readonly topic: Topic;
  readonly scope: Scope;
  /** The payload: a JSON object. */
  readonly message: object;
  /** Bytes that the payload may have as JSON. Default, and the most there can be: 1 MiB. */
  readonly limit?: number;
  /** Who publishes, for `Nats-Msg-Id`: a principal's id, or a service's name. */
  readonly principal: string;
  /** `ce-source`. */
  readonly source: string;
  /** The event's id; a UUIDv7 where absent. */
  readonly id?: string;
  /** The same key again within two minutes is stored once. Default: the event's id. Ephemeral: of no effect. */
  readonly idempotencyKey?: string;
  readonly kind?: 'broadcast';
  /** W3C trace context. */
  readonly traceparent?: string;
}

/** What a publisher gets once its event is stored; of an ephemeral one: once the server has it. */
export interface Receipt {
  /** The event's id: the original's where this publish was a duplicate. */
  readonly id: string;
  /** Absent for an ephemeral event: it is stored nowhere. */
  readonly position?: Position;
  readonly duplicate: boolean;
  /** What the event takes in the stream, in bytes: payload, subject, headers and the stream's own; ephemeral: 0. */
  readonly bytes: number;
}

/**
 * An event on its way out, checked: the payload is a JSON object and fits its topic's schema. Of an ephemeral
 * one, which is always global, this is all.
 */
export interface EphemeralEvent {
  readonly audience: string;
  /** `<key>.<segments>`. */
  readonly path: string;
  readonly topic: Topic;
  readonly id: string;
  readonly kind: 'broadcast' | undefined;
  /** The payload's own bytes, for whoever passes them on. */
  readonly bytes: Uint8Array;
  /** The payload, parsed. Nobody changes it: subscribers share it. */
  readonly message: Readonly<Record<string, unknown>>;
  /** W3C trace context. Of an event that a durable consumer records: the span that handles it. */
  readonly traceparent: string | undefined;
  /**
   * When it was published, as its copy says: by the stream's clock where the server tells (2.10 or later), else by the
   * publisher's, RFC 3339. Not checked, and no part of the event: a measure of how long it was on its way.
   */
  readonly time: string | undefined;
}

/** An event that is stored. */
export interface BusEvent extends EphemeralEvent {
  readonly scope: Scope;
  readonly instance: string | null;
  readonly position: Position;
}

/** Which events somebody wants to hear. */
export interface Interest {
  readonly audience: string;
  readonly scope: Scope;
  /** Path filter, in NATS's syntax: one topic's path, or a pattern's filter. */
  readonly filter: string;
}

/** Which ephemeral events somebody wants to hear: those of one audience on the topics that a path filter takes. */
export type EphemeralInterest = Omit<Interest, 'scope'>;

/** Takes ephemeral events. As a {@link LiveHandler} it MUST NOT throw and MUST NOT block. */
export type EphemeralHandler = (event: EphemeralEvent) => void;

/** Takes live events, in order for each topic. MUST NOT throw and MUST NOT block: it runs on the socket's turn. */
export type LiveHandler = (event: BusEvent) => void;

export interface LiveSubscription {
  /**
   * Resolves with the place in the stream at which this subscription begins: everything stored after it is
   * delivered, nothing up to it is. Rejects with `unavailable` when the stream's leader cannot be asked.
   */
  readonly started: Promise<Position>;
  /**
   * Resolves once everything stored up to a place and taken by the filter was handed to the handler; what the
   * stream has dropped meanwhile does not count. The place is one that {@link Bus.horizon} gave. Many may ask at
   * once: one question is on its way, and none goes out for a place that is known to be complete.
   * Rejects with `unavailable` where the leader does not answer, the epoch is another or the subscription ended.
   */
  verify(upTo: Position): Promise<void>;
  /** Everything up to here was handed to the handler, as far as is known without a question; undefined before it begins. */
  readonly complete: Position | undefined;
  /** Ends the subscription at once; nothing is delivered afterwards. */
  close(): void;
}

/**
 * Stored events, in the order of the stream, each once; rejected ones are left out. To be iterated once: the
 * next ones are read when they are asked for. The iteration rejects with `unavailable` where the stream's
 * leader does not answer for some seconds, or drops what was not read yet; what came before is complete.
 */
export interface History extends AsyncIterable<BusEvent> {
  /**
   * False where events after the position are not kept any more, or it is not of this stream: then the history
   * begins with the oldest that is kept.
   */
  readonly recovered: boolean;
  /** The place after which it begins. */
  readonly after: Position;
  /** Ends the iteration at once. */
  close(): void;
}

/**
 * Takes events, in order for each topic. While catching up each is waited for before the next. Once caught up
 * it is a {@link LiveHandler}: nothing is waited for. MUST NOT throw or reject.
 */
export type ResumeHandler = (event: BusEvent) => void | Promise<void>;

export interface ResumptionStart {
  /** The place after which delivery begins. */
  readonly position: Position;
  /** As {@link History.recovered}. */
  readonly recovered: boolean;
}

export interface Resumption {
  /** Resolves before the first event. Rejects with `unavailable` when the stream's leader cannot be asked. */
  readonly started: Promise<ResumptionStart>;
  /**
   * Resolves once events flow live. Rejects with `unavailable` where history broke off: nothing is delivered
   * any more, and what was delivered is complete, so that the last position can be resumed from.
   */
  readonly caughtUp: Promise<void>;
  /** Ends it at once; nothing is delivered afterwards. */
  close(): void;
}

/** Handles one event of a durable consumer. A throw means redelivery, or a dead letter: see settlement.ts. */
export type DurableHandler = (event: BusEvent, delivery: Delivery) => Promise<void>;

export interface Delivery {
  /** 1 for the first try. */
  readonly tries: number;
  /** When the stream stored the event, in nanoseconds since 1970: grows along the stream. */
  readonly storedAt: bigint;
  /**
   * Whether this consumer gave the event up before, and was told to take it once more. The event is as it was,
   * with its own id, position and time; `tries` counts from 1 again.
   */
  readonly redriven: boolean;
}

export interface DurableOptions {
  /**
   * The consumer's name, as NATS takes it (`encodeToken` makes one of any text): processes that give the same name
   * share its events. One stream has one space of names, so services of several instances or audiences name
   * theirs in it.
   */
  readonly name: string;
  readonly scope: Scope;
  /** One audience, or every one. */
  readonly audience: string | null;
  /**
   * Path filters of the topics that are handled. Others that the consumer's own filter lets through are skipped:
   * while two versions of a service run side by side, the older one skips what only the newer one handles.
   */
  readonly filters: readonly string[];
  /**
   * How many events may be in work at once in all processes together. Default 512. Redriven ones are as many
   * again at most, and one process never has more than this of both.
   */
  readonly maxInFlight?: number;
  /** Milliseconds after which an event whose process died is given to another. Default 30,000. */
  readonly ackWait?: number;
  /** Milliseconds between tries; after the last one: dead letter. Default: `BACKOFF` of settlement.ts. */
  readonly backoff?: readonly number[];
}

export interface DurableSubscription {
  /** Resolves once the consumer exists and events flow; rejects where it was closed before that. */
  readonly ready: Promise<void>;
  /**
   * Takes no more events, waits for those in work, settles them. What is held for a service that is away goes
   * back to the stream.
   */
  close(): Promise<void>;
}

export interface Bus {
  /**
   * Checks the payload against the topic's schema and stores the event. Resolves once JetStream has acknowledged.
   * An event of an ephemeral topic is sent on instead, and resolves once the server has it.
   * MUST reject with `unavailable` while NATS is away instead of keeping the event for later. Where the connection
   * is lost before the acknowledgement came, the event may be stored: the same id again tells.
   * @throws ProblemError `payload_invalid`, `payload_too_large`, `idempotency_conflict`, `audience_not_found`,
   *   `unavailable`; `request_invalid` for a local event of an ephemeral topic
   */
  publish(draft: Draft): Promise<Receipt>;

  /**
   * Follows live copies. Events of one topic come in the order of the stream; a late or doubled copy is
   * dropped; a gap is noticed and counted. A publisher that subscribed hears its own events.
   */
  live(interest: Interest, handler: LiveHandler): LiveSubscription;

  /**
   * Whether a topic is ephemeral: registered with `durable: false`. A promise where the registry has to be asked;
   * with the registry away what this process knows decides.
   */
  isEphemeral(audience: string, topic: Topic): boolean | Promise<boolean>;

  /**
   * Follows ephemeral events, from the server's next turn on: in the order of each publisher, without replay.
   * What is lost while this process or its connection is slow or away is lost.
   */
  ephemeral(interest: EphemeralInterest, handler: EphemeralHandler): { close(): void };

  /** A place in the stream up to which everything was stored before this call, asked of the stream's leader. */
  horizon(scope: Scope): Promise<Position>;

  /**
   * The place after which everything was stored at a moment or later, and before which everything earlier was, by
   * the server's clock. Callers who ask within a second for the same distance from now share one search.
   * @param ago milliseconds before now
   * @throws ProblemError `unavailable`
   */
  recently(scope: Scope, ago: number): Promise<Position>;

  /**
   * Stored events after a position or cursor, up to a place. Callers who ask for the same filter from nearby
   * places at about the same time share one reading. For a splice with live events `until` is asked for after
   * the live subscription was made: its `started`, or {@link horizon}.
   * @throws ProblemError `unavailable`
   */
  history(interest: Interest, since: Cursor, until: Position): Promise<History>;

  /**
   * {@link history} and then {@link live}, spliced: each event after the position once, in order for each topic,
   * no gap and no duplicate between the two. A slow handler holds up the reading of history, and no memory.
   */
  resume(interest: Interest, since: Cursor, handler: ResumeHandler): Resumption;

  /**
   * Binds to a durable consumer, creating it where it is missing; a new one begins with the oldest event that
   * is kept. Each event is redelivered until settled.
   * @throws RangeError without a filter
   */
  consume(options: DurableOptions, handler: DurableHandler): DurableSubscription;
}

/** What the bus tells about itself; libraries count, apps expose. Every call is cheap. */
export interface BusObserver {
  /** Accepted: stored, or ephemeral and sent on. */
  published(scope: Scope): void;
  refused(code: string): void;
  /** JetStream has acknowledged an event, so many seconds after it was sent. */
  acknowledged(seconds: number): void;
  /** An event was passed on as it came: live, or repaired. */
  delivered(scope: Scope): void;
  /** An event was read from the stream for somebody who came later. */
  replayed(scope: Scope): void;
  /** A copy or stored event that was not passed on. */
  dropped(reason: DropReason): void;
  /** A copy before this one did not come. */
  gap(): void;
  /** An event was passed on from the stream, because its copy did not come. */
  repaired(): void;
  /** One more (1) or one less (-1) topic waits for the stream's leader to say what is missing. */
  repairing(change: 1 | -1): void;
  /** The stream's leader did not say what is missing; it is asked again. */
  unanswered(): void;
  /**
   * What became of an event that a durable consumer took; `skip`: its topic is none that is handled.
   * @param code why it is a dead letter: any text, since handlers make their own
   */
  settled(outcome: 'ack' | 'skip' | 'retry' | 'hold' | 'dead', consumer: string, code?: string): void;
}

/**
 * Why an edge drops what it hears: forged or foreign copies, late ones, payloads that are not events, and what
 * comes as ephemeral on a topic that is not.
 */
export type DropReason =
  | 'unsequenced'
  | 'late'
  | 'no_topic'
  | 'not_ephemeral'
  | 'not_json'
  | 'not_object'
  | 'schema';
