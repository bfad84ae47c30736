/**
 * Asks the registry over NATS request/reply in the wire format of Nest's NATS transport, for processes that
 * have a NATS connection and no Nest client.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { isProblemCode, type LookupReply, ProblemError, REGISTRY_CALLS } from '@posthorn/contracts';
import { v7 as uuidv7 } from 'uuid';
import type { Lookup } from './topic-directory.js';

const TIMEOUT = 2_000;

interface Reply {
  readonly response?: LookupReply;
  readonly err?: { readonly code?: unknown; readonly detail?: unknown };
}

export function registryLookup(nc: NatsConnection): Lookup {
  return async (request) => {
    let reply: Reply;
    try {
      const packet = { pattern: REGISTRY_CALLS.lookup, data: request, id: uuidv7() };
      const msg = await nc.request(REGISTRY_CALLS.lookup, JSON.stringify(packet), { timeout: TIMEOUT });
      reply = msg.json<Reply>();
    } catch (cause) {
      throw new ProblemError('unavailable', 'The registry does not answer', { cause, retryAfter: 1 });
    }
    if (reply.response) return reply.response;
    const code = isProblemCode(reply.err?.code) ? reply.err.code : 'internal';
    throw new ProblemError(code, String(reply.err?.detail ?? 'The registry failed'));
  };
}
