/** Dead letters: events that a durable consumer gave up, kept whole in `PH_DEAD` with the reason. */
import { createHash } from 'node:crypto';
import type { JetStreamClient, JsMsg } from '@nats-io/jetstream';
import { type MsgHdrs, headers as newHeaders } from '@nats-io/transport-node';
import { deadLetterSubject } from '@posthorn/contracts';
import { headersOf, headerText } from './jetstream/headers.js';

/** Headers that a dead letter adds to those of the event. */
export const DEAD_HEADER = {
  consumer: 'Posthorn-Dead-Consumer',
  code: 'Posthorn-Dead-Code',
  reason: 'Posthorn-Dead-Reason',
  tries: 'Posthorn-Dead-Tries',
  subject: 'Posthorn-Dead-Subject',
  stream: 'Posthorn-Dead-Stream',
  sequence: 'Posthorn-Dead-Sequence',
  time: 'Posthorn-Dead-Time',
} as const;

/** A dead letter, read back. */
export interface DeadLetter {
  readonly consumer: string;
  readonly code: string;
  readonly reason: string;
  readonly tries: number;
  /** Where the event is stored. */
  readonly subject: string;
  readonly stream: string;
  readonly sequence: number;
  /** When it was given up, ISO 8601. */
  readonly time: string;
  /** The event's payload as it was published. */
  readonly payload: Uint8Array;
}

/** The longest reason that is kept, in characters. */
const REASON_LIMIT = 1_000;

/**
 * Stores an event as a dead letter of a consumer; resolves once it is stored. The same event of the same
 * consumer is stored once, also when the process dies before it could settle the original.
 */
export async function storeDeadLetter(
  js: JetStreamClient,
  consumer: string,
  message: JsMsg,
  failure: { readonly code: string; readonly reason: string; readonly tries: number },
): Promise<void> {
  const { stream, streamSequence } = message.info;
  const headers = copyEventHeaders(headersOf(message));
  headers.set(DEAD_HEADER.consumer, headerText(consumer));
  headers.set(DEAD_HEADER.code, headerText(failure.code));
  headers.set(DEAD_HEADER.reason, headerText(failure.reason.slice(0, REASON_LIMIT)));
  headers.set(DEAD_HEADER.tries, String(failure.tries));
  headers.set(DEAD_HEADER.subject, message.subject);
  headers.set(DEAD_HEADER.stream, stream);
  headers.set(DEAD_HEADER.sequence, String(streamSequence));
  headers.set(DEAD_HEADER.time, new Date().toISOString());
  const identity = [consumer, stream, streamSequence, String(message.timestampNanos)];
  const msgID = createHash('sha256').update(JSON.stringify(identity)).digest('base64url');
  await js.publish(deadLetterSubject(consumer), message.data, { headers, msgID });
}

/** Reads a stored dead letter; undefined for a message that is none. */
export function readDeadLetter(headers: MsgHdrs | undefined, payload: Uint8Array): DeadLetter | undefined {
  const value = (name: string) => headers?.last(name) ?? '';
  const consumer = value(DEAD_HEADER.consumer);
  if (!consumer) return undefined;
  return {
    consumer,
    code: value(DEAD_HEADER.code),
    reason: value(DEAD_HEADER.reason),
    tries: Number(value(DEAD_HEADER.tries)),
    subject: value(DEAD_HEADER.subject),
    stream: value(DEAD_HEADER.stream),
    sequence: Number(value(DEAD_HEADER.sequence)),
    time: value(DEAD_HEADER.time),
    payload,
  };
}

/** The event's own headers without those that NATS reads: a foreign publisher's would steer this publish. */
function copyEventHeaders(original: MsgHdrs | undefined): MsgHdrs {
  const copy = newHeaders();
  for (const name of original?.keys() ?? []) {
    if (/^nats-/i.test(name) || /^posthorn-dead-/i.test(name)) continue;
    for (const value of original!.values(name)) copy.append(name, value);
  }
  return copy;
}
