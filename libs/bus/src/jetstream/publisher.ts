/** Takes events: checked first, acknowledged only once JetStream has them, or the server where they are ephemeral. */
import { isDeepStrictEqual } from 'node:util';
import type { JetStreamManager } from '@nats-io/jetstream';
import { InvalidArgumentError } from '@nats-io/nats-core';
import {
  asProblem,
  ephemeralSubject,
  HEADER,
  isTraceparent,
  messageId,
  PAYLOAD_LIMIT,
  ProblemError,
  publicName,
  type Span,
  STREAMS,
  storedSubject,
  type Tracer,
  topicKey,
} from '@posthorn/contracts';
import type { BusObserver, Draft, Receipt } from '../port.js';
import { attributesOf, nameOf } from '../tracing.js';
import { type Ack, type Acknowledgements, StoreRefusal, SubjectRefusal } from './acknowledgements.js';
import type { EphemeralSender } from './ephemeral.js';
import type { Epochs } from './epochs.js';
import { checkEventId, newEventId } from './event-id.js';
import { headerText, storedBytes, WrittenHeaders } from './headers.js';
import type { InFlight } from './in-flight.js';
import type { TopicDirectory } from './topic-directory.js';

/** The server's error code for a message over the stream's limit. */
const MESSAGE_TOO_LARGE = 10054;

const utf8 = new TextDecoder();

export interface PublisherParts {
  readonly acknowledgements: Acknowledgements;
  readonly jsm: JetStreamManager;
  readonly sender: EphemeralSender;
  readonly topics: TopicDirectory;
  readonly epochs: Epochs;
  readonly instance: string;
  readonly observer: BusObserver;
  readonly tracer: Tracer | undefined;
  readonly inFlight: InFlight;
  /** Whether the connection is up now. */
  readonly connected: () => boolean;
  /** How long an acknowledgement may take, in milliseconds. */
  readonly ackTimeout: number;
}

export class Publisher {
  readonly #parts: PublisherParts;
  readonly #encoder = new TextEncoder();
  /** Topics that the registry is asked about now: what is published on them meanwhile stands in line. */
  readonly #asked = new Map<string, Promise<unknown>>();

  constructor(parts: PublisherParts) {
    this.#parts = parts;
  }

  /** See `Bus.publish`. Calls for one topic, made one after another without awaiting, are stored in that order. */
  async publish(draft: Draft): Promise<Receipt> {
    const { observer, tracer } = this.#parts;
    const span = tracer && this.#span(tracer, draft);
    try {
      const receipt = await this.#admit(span ? { ...draft, traceparent: span.traceparent } : draft);
      observer.published(draft.scope);
      if (span) {
        span.set({
          'messaging.message.id': receipt.id,
          'posthorn.duplicate': receipt.duplicate || undefined,
        });
        span.end();
      }
      return receipt;
    } catch (error) {
      const problem = asProblem(error);
      observer.refused(problem.code);
      span?.end(problem.code);
      throw problem;
    }
  }

  #span(tracer: Tracer, draft: Draft): Span | undefined {
    return tracer.start(nameOf('send', draft.topic), {
      kind: 'producer',
      parent: draft.traceparent,
      attributes: attributesOf('send', draft),
    });
  }

  #admit(draft: Draft): Promise<Receipt> {
    const key = topicKey(draft.audience, draft.topic.path);
    let admission = this.#asked.get(key);
    if (!admission) {
      admission = this.#parts.topics.admission(draft.audience, draft.topic);
      if (!admission) return this.#accept(draft);
      this.#asked.set(key, admission);
      const forget = () => this.#asked.delete(key);
      admission.then(forget, forget);
    }
    // Whoever waits for one promise goes on in the order of asking, before anybody else gets a turn.
    return admission.then(() => this.#accept(draft));
  }

  /** @throws ProblemError, at once or in the promise */
  #accept(draft: Draft): Promise<Receipt> {
    const { topics } = this.#parts;
    const { audience, topic, message } = draft;
    const id = checkEventId(draft.id) ?? newEventId();
    const data = this.#serialize(draft);
    const findings = topics.check(topic, audience, message);
    if (findings.length > 0) {
      throw new ProblemError('payload_invalid', `The payload does not fit ${publicName(topic)}`, {
        errors: findings,
      });
    }
    return topics.isEphemeral(audience, topic.path)
      ? this.#send(draft, id, data)
      : this.#store(draft, id, data);
  }

  async #send(draft: Draft, id: string, data: Uint8Array): Promise<Receipt> {
    const { sender, ackTimeout } = this.#parts;
    const { audience, topic, scope } = draft;
    if (scope === 'local') {
      throw new ProblemError(
        'request_invalid',
        `${publicName(topic)} is ephemeral, and has global events only`,
      );
    }
    const subject = ephemeralSubject(audience, topic.path);
    this.#assertConnected();
    await sender.send(subject, data, envelope(draft, id), ackTimeout).catch(refused);
    return { id, duplicate: false, bytes: 0 };
  }

  #store(draft: Draft, id: string, data: Uint8Array): Promise<Receipt> {
    const { acknowledgements, epochs, instance } = this.#parts;
    const { audience, topic, scope } = draft;
    const subject = storedSubject(audience, scope, instance, topic.path);
    const epoch = epochs.of(scope);
    this.#assertConnected();
    const headers = envelope(draft, id, [
      HEADER.msgId,
      messageId({
        audience,
        scope,
        instance: scope === 'local' ? instance : null,
        path: topic.path,
        principal: draft.principal,
        key: draft.idempotencyKey ?? id,
      }),
    ]);
    const receiptOf = ({ seq, duplicate }: Ack): Receipt | Promise<Receipt> => {
      const bytes = storedBytes(subject, headers, data);
      const receipt = { id, position: { epoch, sequence: seq }, duplicate: duplicate === true, bytes };
      if (!duplicate) return receipt;
      return this.#original(draft, seq, data).then((original) => ({ ...receipt, id: original ?? id }));
    };
    return acknowledgements.publish(subject, data, headers).then(receiptOf, refused);
  }

  #serialize({ message, limit = PAYLOAD_LIMIT.service }: Draft): Uint8Array {
    let text: string | undefined;
    try {
      text = JSON.stringify(message);
    } catch (cause) {
      throw new ProblemError('request_invalid', 'The payload is not JSON', { cause });
    }
    if (!text?.startsWith('{')) throw new ProblemError('request_invalid', 'The payload must be an object');
    const data = this.#encoder.encode(text);
    if (data.length > limit) {
      throw new ProblemError('payload_too_large', `The payload has ${data.length} bytes, more than ${limit}`);
    }
    return data;
  }

  /**
   * The id of the event that a duplicate repeats, undefined where it cannot be read any more.
   * @throws ProblemError `idempotency_conflict` where its payload differs
   */
  async #original({ scope }: Draft, sequence: number, data: Uint8Array): Promise<string | undefined> {
    const { jsm, inFlight } = this.#parts;
    const stored = await inFlight
      .untilLost(jsm.streams.getMessage(STREAMS[scope].name, { seq: sequence }))
      .catch(() => null);
    if (!stored) return undefined;
    // Members in another order are the same payload.
    const same =
      Buffer.compare(stored.data, data) === 0 || isDeepStrictEqual(parse(stored.data), parse(data));
    if (!same) {
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

/** An event's headers. */
function envelope(
  { topic, source, kind, traceparent }: Draft,
  id: string,
  more: readonly string[] = [],
): WrittenHeaders {
  const name = headerText(publicName(topic));
  const lines = [
    ...more,
    ...[HEADER.specVersion, '1.0', HEADER.id, id, HEADER.source, headerText(source), HEADER.type, name],
    ...[HEADER.time, new Date().toISOString(), HEADER.topic, name],
  ];
  if (kind) lines.push(HEADER.kind, kind);
  if (isTraceparent(traceparent)) lines.push(HEADER.traceparent, traceparent);
  return new WrittenHeaders(lines);
}

/** What the store's refusal means to a caller. Without an answer the event may be stored or not: its id tells. */
function refused(cause: unknown): never {
  const tooLarge = cause instanceof StoreRefusal && cause.code === MESSAGE_TOO_LARGE;
  // The one argument that nats.js checks and we do not is the server's own limit.
  if (tooLarge || cause instanceof InvalidArgumentError) {
    throw new ProblemError('payload_too_large', 'The event is larger than the event store takes', { cause });
  }
  if (cause instanceof SubjectRefusal) {
    // Permissions are configuration: whoever mends it lets what is held go on.
    throw new ProblemError('unavailable', 'NATS does not let this process publish there', { cause });
  }
  throw new ProblemError('unavailable', 'The event store did not acknowledge the event', {
    cause,
    retryAfter: 1,
  });
}

function parse(data: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(data));
  } catch {
    return undefined;
  }
}
