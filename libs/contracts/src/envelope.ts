/** The envelope of an event: CloudEvents 1.0 in NATS's binary mode, and our own headers (docs/protocols/events.md). */
import { hash } from 'node:crypto';
import type { Scope } from './subject.js';

/** Header names. The server writes those of `nats`; of each only the last value counts. */
export const HEADER = {
  msgId: 'Nats-Msg-Id',
  specVersion: 'ce-specversion',
  id: 'ce-id',
  source: 'ce-source',
  type: 'ce-type',
  time: 'ce-time',
  topic: 'Topic',
  kind: 'Posthorn-Kind',
  traceparent: 'traceparent',
  stream: 'Nats-Stream',
  subject: 'Nats-Subject',
  sequence: 'Nats-Sequence',
  lastSequence: 'Nats-Last-Sequence',
  /** When the stream stored it; on live copies from nats-server 2.10 on. */
  timestamp: 'Nats-Time-Stamp',
} as const;

/** The largest payload of an event, in bytes: from services, and from end users. */
export const PAYLOAD_LIMIT = { service: 1024 * 1024, user: 64 * 1024 } as const;

/** The longest id of an event, in characters. */
export const EVENT_ID_LIMIT = 255;

/** What makes two publishes the same one. */
export interface IdempotencyScope {
  readonly audience: string;
  readonly scope: Scope;
  /** Null for scope global. */
  readonly instance: string | null;
  /** The topic's path. */
  readonly path: string;
  /** Who publishes: a principal's id or a service's source. */
  readonly principal: string;
  /** What the caller gave. */
  readonly key: string;
}

/**
 * `Nats-Msg-Id`. JetStream's duplicate window is one space for all tenants, so a caller's own text never
 * goes there; JSON keeps the parts apart whatever they hold.
 */
export function messageId(scope: IdempotencyScope): string {
  const parts = [scope.audience, scope.scope, scope.instance, scope.path, scope.principal, scope.key];
  return hash('sha256', JSON.stringify(parts), 'base64url');
}
