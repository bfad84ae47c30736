/** From `PH_DEAD` to the table of dead letters: what queued up while a batch was written is the next batch. */
import {
  AckPolicy,
  type ConsumerMessages,
  DeliverPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JsMsg,
} from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/transport-node';
import { headersOf, Intake, type JetStreamBus, readDeadLetter } from '@posthorn/bus/platform';
import { deadLetterSubject, HEADER, publicName, STREAMS, topicAt } from '@posthorn/contracts';
import { type Logger, onceUntil } from '@posthorn/service';
import { refusedByDatabase } from '../failure.js';
import type { LetterStore, ProjectedLetter } from './letter-store.js';

export interface ProjectionOptions {
  readonly nc: NatsConnection;
  readonly bus: JetStreamBus;
  readonly store: LetterStore;
  readonly logger: Logger;
  /** The durable consumer on `PH_DEAD`, which the replicas of the instance share. */
  readonly consumer: string;
  readonly instance: string;
  /** The consumer whose letters wait for managers. */
  readonly worker: string;
  /** Consumers that handle events of several audiences together: one's failure may speak of another's event. */
  readonly batching: ReadonlySet<string>;
  /** Told when letters that wait for managers were written. */
  readonly waiting: () => void;
}

/** Letters that are written in one transaction, unless one alone is larger. */
const BATCH = 200;
const BATCH_BYTES = 2 * 1024 * 1024;
/** Letters that one process asks for at a time: nats-server ends a connection before which 64 MiB wait. */
const PULLED = { max_messages: 32, threshold_messages: 16 };
/** The consumer's limits: what all replicas together may have in work, and for how long, in nanoseconds. */
export const LETTERS = { ack_wait: nanos(60_000), max_ack_pending: 2_000 } as const;
/** How long one pull lasts, in milliseconds. */
const PULL = 10_000;
/** The pause before letters that could not be written are tried again, in milliseconds. */
const RETRY = 2_000;

export class Projection {
  readonly #options: ProjectionOptions;
  readonly #closing = new AbortController();
  readonly #intake: Intake;
  readonly #stuck: ReturnType<typeof onceUntil>;
  readonly #queue: JsMsg[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;

  constructor(options: ProjectionOptions) {
    this.#options = options;
    const { nc, logger } = options;
    this.#stuck = onceUntil(logger, {
      begins: 'dead letters cannot be written',
      ends: 'dead letters are written again',
    });
    const unbound = onceUntil(logger, {
      begins: 'waiting for the stream of dead letters',
      ends: 'the stream of dead letters is there',
    });
    this.#intake = new Intake({
      nc,
      signal: this.#closing.signal,
      bind: () => this.#bind(),
      take: (message) => this.#take(message),
      report: (error) => {
        if (error === undefined) unbound.end();
        else unbound.begin({ reason: String(error) });
      },
    });
  }

  /** Takes no more letters, and finishes those that it has. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#intake.idle();
    await this.#writing;
  }

  /** How many messages of `PH_DEAD` are not in the table yet. */
  async lag(): Promise<number> {
    const { bus, consumer } = this.#options;
    const { num_pending, num_ack_pending } = await bus.jsm.consumers.info(STREAMS.dead.name, consumer);
    return num_pending + num_ack_pending;
  }

  async #bind(): Promise<ConsumerMessages> {
    const { bus, consumer } = this.#options;
    const stream = STREAMS.dead.name;
    try {
      await bus.jsm.consumers.update(stream, consumer, LETTERS);
    } catch (error) {
      const missing = error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound;
      if (!missing) throw error;
      await bus.jsm.consumers.add(stream, {
        ...LETTERS,
        durable_name: consumer,
        filter_subject: STREAMS.dead.subjects,
        deliver_policy: DeliverPolicy.All,
        ack_policy: AckPolicy.Explicit,
        max_deliver: -1,
      });
    }
    const bound = await bus.js.consumers.get(stream, consumer);
    return bound.consume({ ...PULLED, expires: PULL, abort_on_missing_resource: true });
  }

  #take(message: JsMsg): Promise<void> | undefined {
    this.#queue.push(message);
    this.#bytes += message.data.length;
    this.#writing ??= this.#write();
    return this.#queue.length >= BATCH || this.#bytes >= BATCH_BYTES ? this.#writing : undefined;
  }

  async #write(): Promise<void> {
    // The letters that this turn of the event loop still delivers join the first batch.
    await new Promise(setImmediate);
    while (this.#queue.length > 0) {
      this.#bytes = 0;
      await this.#project(this.#queue.splice(0));
    }
    this.#writing = undefined;
  }

  /** Never rejects. */
  async #project(messages: readonly JsMsg[]): Promise<void> {
    const { store, logger, waiting } = this.#options;
    const letters = messages.flatMap((message) => this.#read(message) ?? []);
    try {
      if (letters.length > 0) await store.insert(letters);
      this.#stuck.end();
      for (const message of messages) message.ack();
      if (letters.some(({ waitsFor }) => waitsFor !== undefined)) waiting();
    } catch (error) {
      const refused = refusedByDatabase(error);
      if (refused && messages.length > 1) {
        for (const message of messages) await this.#project([message]);
      } else if (refused) {
        const [message] = messages;
        logger.error({ sequence: message!.seq, reason: refused.message }, 'a dead letter cannot be listed');
        message!.term();
      } else {
        this.#stuck.begin({ reason: String(error) });
        for (const message of messages) message.nak(RETRY);
      }
    }
  }

  /** What this instance lists: letters of its own events and of global ones. */
  #read(message: JsMsg): ProjectedLetter | undefined {
    const { bus, instance, worker, batching, logger } = this.#options;
    const letter = readDeadLetter(headersOf(message), message.data);
    if (!letter || message.subject !== deadLetterSubject(letter.consumer)) {
      logger.warn({ sequence: message.seq }, 'a message among the dead letters is none');
      return undefined;
    }
    const { source, headers, consumer, code, waitsFor } = letter;
    if (source.scope === 'local' && source.instance !== instance) return undefined;
    const name = headers.findLast(([header]) => header === HEADER.topic)?.[1];
    const topic = topicAt(source.path, bus.topics.cached(source.audience, source.path)?.topic, name);
    const hidden = code === 'tries_exhausted' && batching.has(consumer);
    if (hidden)
      logger.warn({ letter: letter.id, consumer, reason: letter.reason }, 'why a dead letter is one');
    return {
      letter,
      topic: topic ? publicName(topic) : source.path,
      reason: hidden ? 'The platform failed at it each time; its log says why' : letter.reason,
      diedAt: message.timestampNanos,
      waitsFor: consumer === worker && code === 'managers_unknown' ? waitsFor : undefined,
    };
  }
}
