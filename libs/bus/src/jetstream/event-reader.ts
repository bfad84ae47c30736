/**
 * Reads events off NATS and trusts nothing: not the headers, not the payload (docs/protocols/events.md,
 * "Envelope"). A publisher can forge `Nats-*` headers; the server's stand behind them, so the last value counts.
 */

import type { MsgHdrs } from '@nats-io/transport-node';
import {
  type Finding,
  formatPosition,
  HEADER,
  type Position,
  type Scope,
  STREAMS,
  type StoredSubject,
  type Topic,
  topicAt,
} from '@posthorn/contracts';
import type { BusEvent, DropReason, EphemeralEvent } from '../port.js';
import { isEventId, newEventId } from './event-id.js';
import { lastOf } from './headers.js';
import type { TopicDirectory } from './topic-directory.js';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const SEQUENCE = /^[1-9][0-9]{0,15}$/;

/** Why something read is no event. `findings` for a payload that breaks its topic's schema. */
export interface Rejection {
  readonly reason: DropReason;
  readonly findings?: readonly Finding[];
}

/** Where a live copy stands in its stream. */
export interface CopySequence {
  readonly sequence: number;
  /** The sequence before it on the same subject, 0 for none. */
  readonly previous: number;
}

/** The sequence headers of a live copy, or undefined for a copy that the expected stream did not make. */
export function readCopySequence(
  headers: MsgHdrs | undefined,
  scope: Scope,
  subject: string,
): CopySequence | undefined {
  if (!headers) return undefined;
  if (lastOf(headers, HEADER.stream) !== STREAMS[scope].name) return undefined;
  if (lastOf(headers, HEADER.subject) !== subject) return undefined;
  const sequence = lastOf(headers, HEADER.sequence);
  const previous = lastOf(headers, HEADER.lastSequence);
  if (!SEQUENCE.test(sequence) || !(previous === '0' || SEQUENCE.test(previous))) return undefined;
  return { sequence: Number(sequence), previous: Number(previous) };
}

type Place = Pick<StoredSubject, 'audience' | 'path'>;

/** Topics that a reader remembers by their path. */
const MAX_TOPICS = 4_096;

/** What the name of a topic at a path was made of. */
interface Named {
  readonly topic: Topic;
  readonly registered: string | undefined;
  readonly header: string | undefined;
}

/** What is common to all events, checked. */
type Content = Pick<EphemeralEvent, 'topic' | 'kind' | 'message' | 'traceparent' | 'time'> & {
  /** Undefined where its publisher gave none. */
  readonly id: string | undefined;
};

/** Turns what NATS delivered into an event, or says why it is none. */
export class EventReader {
  readonly #topics: TopicDirectory;
  readonly #named = new Map<string, Named>();

  constructor(topics: TopicDirectory) {
    this.#topics = topics;
  }

  /**
   * @param source where the event is stored
   * @param position its place
   */
  read(
    { audience, path, scope, instance }: StoredSubject,
    position: Position,
    headers: MsgHdrs | undefined,
    bytes: Uint8Array,
  ): BusEvent | Rejection {
    const content = this.#check(audience, path, headers, bytes);
    if (isRejection(content)) return content;
    const { topic, kind, message, traceparent, time, id = formatPosition(position) } = content;
    return { audience, scope, instance, path, topic, id, position, kind, bytes, message, traceparent, time };
  }

  /** @param place whose it is, and on which topic */
  readEphemeral(
    { audience, path }: Place,
    headers: MsgHdrs | undefined,
    bytes: Uint8Array,
  ): EphemeralEvent | Rejection {
    if (!this.#topics.isEphemeral(audience, path)) return { reason: 'not_ephemeral' };
    const content = this.#check(audience, path, headers, bytes);
    if (isRejection(content)) return content;
    const { topic, kind, message, traceparent, time, id = newEventId() } = content;
    return { audience, path, topic, id, kind, bytes, message, traceparent, time };
  }

  #check(
    audience: string,
    path: string,
    headers: MsgHdrs | undefined,
    bytes: Uint8Array,
  ): Content | Rejection {
    const topic = this.#topic(audience, path, (headers && lastOf(headers, HEADER.topic)) || undefined);
    if (!topic) return { reason: 'no_topic' };
    const message = parseObject(bytes);
    if (typeof message === 'string') return { reason: message };
    const findings = this.#topics.check(topic, audience, message);
    if (findings.length > 0) return { reason: 'schema', findings };
    if (!headers) {
      return { topic, message, id: undefined, kind: undefined, traceparent: undefined, time: undefined };
    }
    const id = lastOf(headers, HEADER.id);
    return {
      topic,
      message,
      id: isEventId(id) ? id : undefined,
      kind: lastOf(headers, HEADER.kind) === 'broadcast' ? 'broadcast' : undefined,
      traceparent: lastOf(headers, HEADER.traceparent) || undefined,
      time: lastOf(headers, HEADER.timestamp) || lastOf(headers, HEADER.time) || undefined,
    };
  }

  /** As {@link topicAt}, which parses names: once as long as the names stay the same. */
  #topic(audience: string, path: string, header: string | undefined): Topic | undefined {
    const registered = this.#topics.cached(audience, path)?.topic;
    const known = this.#named.get(path);
    if (known && known.registered === registered && known.header === header) return known.topic;
    const topic = topicAt(path, registered, header);
    if (!topic) return undefined;
    if (this.#named.size >= MAX_TOPICS) this.#named.clear();
    this.#named.set(path, { topic, registered, header });
    return topic;
  }
}

/** Whether {@link EventReader} gave a rejection. */
export function isRejection(result: object): result is Rejection {
  return 'reason' in result;
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | 'not_json' | 'not_object' {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return 'not_json';
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'not_object';
  return value as Record<string, unknown>;
}
