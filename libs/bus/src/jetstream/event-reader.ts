/**
 * Reads events off NATS and trusts nothing: not the headers, not the payload (docs/protocols/events.md,
 * "Envelope"). A publisher can forge `Nats-*` headers; the server's stand behind them, so the last value counts.
 */

import type { MsgHdrs } from '@nats-io/transport-node';
import {
  type Finding,
  formatPosition,
  HEADER,
  type Scope,
  STREAMS,
  type StoredSubject,
  topicAt,
} from '@posthorn/contracts';
import { v7 as uuidv7 } from 'uuid';
import type { BusEvent, DropReason, EphemeralEvent } from '../port.js';
import { isEventId } from './event-id.js';
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
  if (headers.last(HEADER.stream) !== STREAMS[scope].name) return undefined;
  if (headers.last(HEADER.subject) !== subject) return undefined;
  const sequence = headers.last(HEADER.sequence);
  const previous = headers.last(HEADER.lastSequence);
  if (!SEQUENCE.test(sequence) || !(previous === '0' || SEQUENCE.test(previous))) return undefined;
  return { sequence: Number(sequence), previous: Number(previous) };
}

type Place = Pick<StoredSubject, 'audience' | 'path'>;

/** Turns what NATS delivered into an event, or says why it is none. */
export class EventReader {
  readonly #topics: TopicDirectory;

  constructor(topics: TopicDirectory) {
    this.#topics = topics;
  }

  /**
   * @param source where the event is stored
   * @param position its place
   */
  read(
    source: StoredSubject,
    position: { readonly epoch: string; readonly sequence: number },
    headers: MsgHdrs | undefined,
    bytes: Uint8Array,
  ): BusEvent | Rejection {
    const event = this.#event(source, headers, bytes, () => formatPosition(position));
    if (isRejection(event)) return event;
    const { scope, instance } = source;
    return { ...event, scope, instance, position };
  }

  /** @param place whose it is, and on which topic */
  readEphemeral(place: Place, headers: MsgHdrs | undefined, bytes: Uint8Array): EphemeralEvent | Rejection {
    if (!this.#topics.isEphemeral(place.audience, place.path)) return { reason: 'not_ephemeral' };
    return this.#event(place, headers, bytes, uuidv7);
  }

  #event(
    { audience, path }: Place,
    headers: MsgHdrs | undefined,
    bytes: Uint8Array,
    idWithout: () => string,
  ): EphemeralEvent | Rejection {
    const record = this.#topics.cached(audience, path);
    const header = headers?.last(HEADER.topic) || undefined;
    const topic = topicAt(path, record?.topic, header);
    if (!topic) return { reason: 'no_topic' };
    const message = parseObject(bytes);
    if (typeof message === 'string') return { reason: message };
    const findings = this.#topics.check(topic, audience, message);
    if (findings.length > 0) return { reason: 'schema', findings };
    const id = headers?.last(HEADER.id);
    return {
      audience,
      path,
      topic,
      id: isEventId(id) ? id : idWithout(),
      kind: headers?.last(HEADER.kind) === 'broadcast' ? 'broadcast' : undefined,
      bytes,
      message,
      traceparent: headers?.last(HEADER.traceparent) || undefined,
    };
  }
}

/** Whether {@link EventReader} gave a rejection. */
export function isRejection(result: EphemeralEvent | Rejection): result is Rejection {
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
