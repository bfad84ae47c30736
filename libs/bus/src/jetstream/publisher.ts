/** Stores events: checked first, acknowledged only once JetStream has them. */
import { isDeepStrictEqual } from 'node:util';
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  type PubAck,
} from '@nats-io/jetstream';
import { type NatsConnection, headers as newHeaders } from '@nats-io/transport-node';
import {
  EVENT_ID_LIMIT,
  HEADER,
  messageId,
  PAYLOAD_LIMIT,
  ProblemError,
  publicName,
  type Scope,
  STREAMS,
  storedSubject,
} from '@posthorn/contracts';
import { v7 as uuidv7 } from 'uuid';
import type { BusObserver, Draft, Receipt } from '../port.js';
import type { Epochs } from './epochs.js';
import type { TopicDirectory } from './topic-directory.js';

/** How long an acknowledgement may take, in milliseconds. */
const ACK_TIMEOUT = 5_000;

/** Printable text without line breaks: an id stands in a header, in frames and in lines of an event stream. */
const ID = /^[^\p{Cc}\s](?:[^\p{Cc}]*[^\p{Cc}\s])?$/u;

export interface PublisherParts {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly topics: TopicDirectory;
  readonly epochs: Epochs;
  readonly instance: string;
  readonly observer: BusObserver;
  /** Whether the connection is up now. */
  readonly connected: () => boolean;
}

export class Publisher {
  readonly #parts: PublisherParts;
  readonly #encoder = new TextEncoder();

  constructor(parts: PublisherParts) {
    this.#parts = parts;
  }

  /** See `Bus.publish`. Calls made one after another without awaiting are stored in that order. */
  publish(draft: Draft): Promise<Receipt> {
    try {
      const registration = this.#parts.topics.registration(draft.topic, draft.audience);
      // Only a topic seen for the first time has to wait: the others keep the caller's order.
      if (registration instanceof Promise) return registration.then(() => this.#store(draft));
      return this.#store(draft);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #store(draft: Draft): Promise<Receipt> {
    const { js, topics, epochs, instance, observer } = this.#parts;
    const { audience, topic, scope } = draft;
    const id = checkEventId(draft.id) ?? uuidv7();
    const findings = topics.check(topic, audience, draft.message);
    if (findings.length > 0) {
      throw new ProblemError('payload_invalid', `The payload does not fit ${publicName(topic)}`, {
        errors: findings,
      });
    }
    const data = this.#encoder.encode(JSON.stringify(draft.message));
    if (data.length > PAYLOAD_LIMIT.service) {
      throw new ProblemError('payload_too_large', `The payload has ${data.length} bytes, more than 1 MiB`);
    }
    const epoch = epochs.of(scope);
    this.#assertConnected();
    const headers = newHeaders();
    headers.set(HEADER.specVersion, '1.0');
    headers.set(HEADER.id, id);
    headers.set(HEADER.source, headerText(draft.source));
    headers.set(HEADER.type, publicName(topic));
    headers.set(HEADER.time, new Date().toISOString());
    headers.set(HEADER.topic, publicName(topic));
    if (draft.kind) headers.set(HEADER.kind, draft.kind);
    if (draft.traceparent) headers.set(HEADER.traceparent, draft.traceparent);
    const msgID = messageId({
      audience,
      scope,
      instance: scope === 'local' ? instance : null,
      path: topic.path,
      principal: draft.principal,
      key: draft.idempotencyKey ?? id,
    });
    const subject = storedSubject(audience, scope, instance, topic.path);
    const ack = await this.#send(() =>
      js.publish(subject, data, { headers, msgID, timeout: ACK_TIMEOUT, retries: 1 }),
    );
    observer.published(scope);
    const position = { epoch, sequence: ack.seq };
    if (!ack.duplicate) return { id, position, duplicate: false };
    const original = await this.#original(scope, ack.seq, draft.message);
    return { id: original ?? id, position, duplicate: true };
  }

  async #send(publish: () => Promise<PubAck>): Promise<PubAck> {
    try {
      return await publish();
    } catch (cause) {
      if (cause instanceof JetStreamApiError && cause.code === 10054) {
        throw new ProblemError('payload_too_large', 'The event is larger than the event store takes', {
          cause,
        });
      }
      throw new ProblemError('unavailable', 'The event store did not acknowledge the event', {
        cause,
        retryAfter: 1,
      });
    }
  }

  /**
   * The id of the event that a duplicate repeats, undefined where it cannot be read any more.
   * @throws ProblemError `idempotency_conflict` where its payload differs
   */
  async #original(scope: Scope, sequence: number, message: object): Promise<string | undefined> {
    const stored = await this.#parts.jsm.streams
      .getMessage(STREAMS[scope].name, { seq: sequence })
      .catch(() => null);
    if (!stored) return undefined;
    if (!isDeepStrictEqual(stored.json(), JSON.parse(JSON.stringify(message)))) {
      throw new ProblemError('idempotency_conflict', 'The idempotency key was used with another payload');
    }
    return stored.header?.last(HEADER.id) || undefined;
  }

  #assertConnected(): void {
    // nats.js would keep the message and send it after a reconnect, long after the caller was told no.
    if (!this.#parts.connected()) {
      throw new ProblemError('unavailable', 'The event store is away', { retryAfter: 1 });
    }
  }
}

/**
 * An event id or idempotency key from a caller.
 * @throws ProblemError `request_invalid`
 */
export function checkEventId(id: string | undefined): string | undefined {
  if (id === undefined) return undefined;
  if (typeof id !== 'string' || id.length > EVENT_ID_LIMIT || !id.isWellFormed() || !ID.test(id)) {
    throw new ProblemError(
      'request_invalid',
      `An id is a printable text of 1 to ${EVENT_ID_LIMIT} characters`,
      {
        errors: [{ path: '/id', message: `must be a printable text of 1 to ${EVENT_ID_LIMIT} characters` }],
      },
    );
  }
  return id;
}

/** Text for a header: nats.js refuses line breaks, and names of services come from configuration. */
function headerText(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').trim();
}
