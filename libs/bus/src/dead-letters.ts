/**
 * Dead letters: events that a durable consumer gave up, kept whole in `PH_DEAD` with the reason; and redrives,
 * by which one is given to that consumer once more (docs/adr/0009-a-redrive-goes-to-one-consumer.md).
 */
import { createHash } from 'node:crypto';
import { JetStreamApiCodes, JetStreamApiError, type JetStreamClient } from '@nats-io/jetstream';
import { type MsgHdrs, headers as newHeaders } from '@nats-io/transport-node';
import {
  deadLetterSubject,
  decodeToken,
  encodeToken,
  formatPosition,
  HEADER,
  parseStoredSubject,
  redriveSubject,
  type StoredSubject,
} from '@posthorn/contracts';
import { isEventId } from './jetstream/event-id.js';
import { headerText } from './jetstream/headers.js';

/** Headers that a dead letter, or a redrive, adds to those of the event. */
export const DEAD_HEADER = {
  consumer: 'Posthorn-Dead-Consumer',
  code: 'Posthorn-Dead-Code',
  reason: 'Posthorn-Dead-Reason',
  tries: 'Posthorn-Dead-Tries',
  waitsFor: 'Posthorn-Dead-Waits-For',
  redrives: 'Posthorn-Dead-Redrives',
  subject: 'Posthorn-Dead-Subject',
  stream: 'Posthorn-Dead-Stream',
  epoch: 'Posthorn-Dead-Epoch',
  sequence: 'Posthorn-Dead-Sequence',
  stored: 'Posthorn-Dead-Stored',
  time: 'Posthorn-Dead-Time',
} as const;

/** Where an event is stored. */
export interface StoredPlace {
  readonly subject: string;
  readonly stream: string;
  /** The stream's epoch; empty where whoever wrote the letter did not know of epochs. */
  readonly epoch: string;
  readonly sequence: number;
  /** When it was stored, in nanoseconds since 1970. */
  readonly storedAt: bigint;
  /** How often it was redriven. */
  readonly redrives: number;
}

/** An event as its stream has it, wherever this copy of it was read. */
export interface StoredEvent extends StoredPlace {
  /** Its own headers, as pairs of name and value. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Its payload as it was published. */
  readonly payload: Uint8Array;
}

/** A dead letter, read back. */
export interface DeadLetter extends StoredEvent {
  /** The same for each failure of an event at a consumer, however often it is redriven: a UUID. */
  readonly id: string;
  readonly consumer: string;
  readonly code: string;
  readonly reason: string;
  readonly tries: number;
  /** What would mend it, where the consumer told. */
  readonly waitsFor: string | undefined;
  /** When it was given up, ISO 8601, by the consumer's clock. */
  readonly time: string;
  /** What `subject` says. */
  readonly source: StoredSubject;
  /** The event's id, as its handler knows it. */
  readonly eventId: string;
}

/** What of a dead letter a redrive takes. */
export type Redrivable = StoredEvent & Pick<DeadLetter, 'id' | 'consumer' | 'source'>;

/** Why a consumer gave an event up. */
export interface Failure {
  readonly code: string;
  readonly reason: string;
  readonly tries: number;
  readonly waitsFor?: string;
}

/** The longest reason that is kept, in characters. */
const REASON_LIMIT = 1_000;
/** The longest consumer's name, code and the like that is read, in characters. */
const NAME_LIMIT = 255;
/** The longest code that is written: letters can be asked for by codes of up to that length. */
const CODE_LIMIT = 100;
/** The longest name of what would mend a letter, in characters: ids are shorter. */
const WAITS_FOR_LIMIT = 2_000;

const WHOLE = /^(?:0|[1-9][0-9]{0,15})$/;
const NANOSECONDS = /^(?:0|[1-9][0-9]{0,18})$/;
const EPOCH = /^[0-9a-z]{0,24}$/;

/**
 * Stores an event as a dead letter of a consumer; resolves once it is stored. The same failure of the same event
 * is stored once, also when the process dies before it could settle the original.
 */
export async function storeDeadLetter(
  js: JetStreamClient,
  consumer: string,
  event: StoredEvent,
  { code, reason, tries, waitsFor }: Failure,
): Promise<void> {
  const headers = eventHeaders(event);
  headers.set(DEAD_HEADER.consumer, headerText(consumer));
  // A handler's own words, of any length: a letter that is too large to store would come again for ever.
  headers.set(DEAD_HEADER.code, headerText(code.slice(0, CODE_LIMIT)));
  headers.set(DEAD_HEADER.reason, headerText(reason.slice(0, REASON_LIMIT)));
  headers.set(DEAD_HEADER.tries, String(tries));
  headers.set(DEAD_HEADER.time, new Date().toISOString());
  if (waitsFor && waitsFor.length <= WAITS_FOR_LIMIT) {
    headers.set(DEAD_HEADER.waitsFor, encodeToken(waitsFor.toWellFormed()));
  }
  const msgID = `${letterId(consumer, event)}.${event.redrives}`;
  await js.publish(deadLetterSubject(consumer), event.payload, { headers, msgID });
}

/**
 * Gives the event of a dead letter to the consumer that gave it up, once more; resolves once that is stored.
 * However often it is called for a letter that has failed so many times, it is stored once.
 * @throws where JetStream does not take it, or does not answer: then the same call again tells
 */
export async function storeRedrive(js: JetStreamClient, letter: Redrivable): Promise<void> {
  const redrives = letter.redrives + 1;
  const headers = eventHeaders({ ...letter, redrives });
  const subject = redriveSubject(letter.source.scope, letter.consumer, letter.id, redrives);
  try {
    await js.publish(subject, letter.payload, { headers, expect: { lastSubjectSequence: 0 } });
  } catch (error) {
    const stored =
      error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence;
    if (!stored) throw error;
  }
}

/** Reads a stored dead letter; undefined for a message that is none: anybody may publish anything. */
export function readDeadLetter(headers: MsgHdrs | undefined, payload: Uint8Array): DeadLetter | undefined {
  const value = (name: string) => headers?.last(name) ?? '';
  const place = readPlace(headers);
  const source = place && parseStoredSubject(place.subject);
  const consumer = value(DEAD_HEADER.consumer);
  const tries = value(DEAD_HEADER.tries);
  const time = value(DEAD_HEADER.time);
  if (!source || !consumer || consumer.length > NAME_LIMIT) return undefined;
  if (!WHOLE.test(tries) || Number.isNaN(Date.parse(time))) return undefined;
  const ownId = value(HEADER.id);
  return {
    ...place,
    headers: ownHeaders(headers),
    payload,
    id: letterId(consumer, place),
    consumer,
    code: value(DEAD_HEADER.code).slice(0, NAME_LIMIT),
    reason: value(DEAD_HEADER.reason).slice(0, REASON_LIMIT),
    tries: Number(tries),
    waitsFor: decodeToken(value(DEAD_HEADER.waitsFor)),
    time,
    source,
    eventId: isEventId(ownId) ? ownId : formatPosition(place),
  };
}

/** Where the event of a dead letter or a redrive is stored; undefined for a message that is neither. */
export function readPlace(headers: MsgHdrs | undefined): StoredPlace | undefined {
  if (!headers) return undefined;
  const value = (name: string) => headers.last(name);
  const sequence = value(DEAD_HEADER.sequence);
  const redrives = value(DEAD_HEADER.redrives) || '0';
  const epoch = value(DEAD_HEADER.epoch);
  // A letter of before there were redrives tells when it was given up, and not when its event was stored.
  const died = BigInt(Date.parse(value(DEAD_HEADER.time)) || 0) * 1_000_000n;
  const stored = value(DEAD_HEADER.stored) || String(died);
  if (!WHOLE.test(sequence) || !WHOLE.test(redrives) || !NANOSECONDS.test(stored) || !EPOCH.test(epoch)) {
    return undefined;
  }
  return {
    subject: value(DEAD_HEADER.subject),
    stream: value(DEAD_HEADER.stream),
    epoch,
    sequence: Number(sequence),
    storedAt: BigInt(stored),
    redrives: Number(redrives),
  };
}

/** The event's own headers without those that NATS reads: a foreign publisher's would steer the next publish. */
export function ownHeaders(headers: MsgHdrs | undefined): [name: string, value: string][] {
  return (headers?.keys() ?? [])
    .filter((name) => !/^(?:nats|posthorn-dead)-/i.test(name))
    .flatMap((name) => headers!.values(name).map((value): [string, string] => [name, value]));
}

/** The headers from which the event is read again. */
function eventHeaders(event: StoredEvent): MsgHdrs {
  const headers = newHeaders();
  for (const [name, value] of event.headers) headers.append(name, value);
  headers.set(DEAD_HEADER.subject, event.subject);
  headers.set(DEAD_HEADER.stream, event.stream);
  headers.set(DEAD_HEADER.epoch, event.epoch);
  headers.set(DEAD_HEADER.sequence, String(event.sequence));
  headers.set(DEAD_HEADER.stored, String(event.storedAt));
  headers.set(DEAD_HEADER.redrives, String(event.redrives));
  return headers;
}

/** A UUID (version 8, RFC 9562) of what failed where. */
function letterId(consumer: string, { stream, sequence, storedAt }: StoredPlace): string {
  const identity = JSON.stringify([headerText(consumer), stream, sequence, String(storedAt)]);
  const bytes = createHash('sha256').update(identity).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
