/**
 * WebSocket frames as bytes (RFC 6455, section 5.2): from the server, unmasked, never fragmented. A frame for
 * many connections is built once, around the payload's own bytes.
 */

import { formatPosition } from '@posthorn/contracts';
import type { FeedEvent } from './feed.js';

const FIN_TEXT = 0x81;
const CLOSE_BRACE = Buffer.from('}');

/** A ping without payload. */
export const PING_FRAME = Buffer.from([0x89, 0]);

/** One text frame around parts that together are its payload. */
export function textFrame(...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const header = frameHeader(length);
  const frame = Buffer.allocUnsafe(header.length + length);
  frame.set(header, 0);
  let offset = header.length;
  for (const part of parts) {
    frame.set(part, offset);
    offset += part.length;
  }
  return frame;
}

/** A frame that holds a small message of the protocol itself. */
export function jsonFrame(message: object): Buffer {
  return textFrame(Buffer.from(JSON.stringify(message)));
}

/** A frame that holds {@link messageJson}. */
export function messageFrame(event: FeedEvent, name: string): Buffer {
  return textFrame(...messageJson(event, name));
}

/** A frame that holds {@link broadcastJson}. */
export function broadcastFrame(event: FeedEvent): Buffer {
  return textFrame(...broadcastJson(event));
}

/**
 * `{"action":"message","topic":…,"id":…,"position":…,"message":…}` in parts, with the payload's bytes as they are; an
 * ephemeral event has no position.
 */
export function messageJson(event: FeedEvent, name: string): readonly Uint8Array[] {
  return eventJson(`{"action":"message","topic":${JSON.stringify(name)},`, event);
}

/** `{"action":"broadcast","id":…,"position":…,"message":…}` in parts. */
export function broadcastJson(event: FeedEvent): readonly Uint8Array[] {
  return eventJson('{"action":"broadcast",', event);
}

function eventJson(opening: string, event: FeedEvent): readonly Uint8Array[] {
  const place = 'position' in event ? `"position":"${formatPosition(event.position)}",` : '';
  const head = `${opening}"id":${JSON.stringify(event.id)},${place}"message":`;
  return [Buffer.from(head), event.bytes, CLOSE_BRACE];
}

function frameHeader(length: number): Buffer {
  if (length < 126) return Buffer.from([FIN_TEXT, length]);
  if (length < 65_536) return Buffer.from([FIN_TEXT, 126, length >> 8, length & 0xff]);
  const header = Buffer.alloc(10);
  header[0] = FIN_TEXT;
  header[1] = 127;
  header.writeBigUInt64BE(BigInt(length), 2);
  return header;
}
