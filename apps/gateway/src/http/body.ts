/** Bodies: JSON only, and an empty one counts as none, whatever its content type says. */
import type { IncomingHttpHeaders } from 'node:http';
import { exceedsDepth, ProblemError } from '@posthorn/contracts';
import type { FastifyInstance } from 'fastify';

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json$/i;

/** Bytes of a body: a payload of a service, with what stands around it. */
export const BODY_LIMIT = 1_200_000;

/** Bytes of a body that holds no payload: a schema is the largest thing in one. */
const SMALL_BODY_LIMIT = 262_144;

/** Calls with a payload in their body, or lists of places that add up to as much, as they are routed. */
const LARGE: ReadonlySet<string> = new Set([
  '/v1/hook',
  '/v1/notifications',
  '/v1/notify',
  '/v1/stream',
  '/api/v1/pub_subs',
  '/api/v1/publish',
  '/v1/communities/:id/managers',
  '/v1/communities/:id/members',
  '/:database/bus',
]);

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Replaces Fastify's parsers, which answer an empty JSON body with an error. */
export function parseBodies(fastify: FastifyInstance): void {
  fastify.addHook('onRoute', (route) => {
    route.bodyLimit = LARGE.has(route.url) ? BODY_LIMIT : SMALL_BODY_LIMIT;
  });
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: BODY_LIMIT }, (request, body, done) => {
    try {
      done(null, parseBody(body as Buffer, request.headers));
    } catch (error) {
      done(error as Error, undefined);
    }
  });
}

function parseBody(body: Buffer, headers: IncomingHttpHeaders): unknown {
  if (body.length === 0) return undefined;
  const { 'content-type': contentType, 'content-encoding': encoding = 'identity' } = headers;
  // Nothing is unpacked: few bytes could become any number.
  if (encoding.toLowerCase() !== 'identity') {
    throw new ProblemError('request_invalid', 'The body must not be compressed: no Content-Encoding');
  }
  const type = contentType?.split(';', 1)[0]?.trim() ?? '';
  if (!JSON_TYPE.test(type)) {
    throw new ProblemError('request_invalid', 'The body must be JSON: Content-Type: application/json');
  }
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(body));
  } catch {
    throw new ProblemError('request_invalid', 'The body is not JSON', {
      errors: [{ path: '', message: 'must be JSON in UTF-8' }],
    });
  }
  if (exceedsDepth(value)) {
    throw new ProblemError('request_invalid', 'The body is nested too deeply', {
      errors: [{ path: '', message: 'is nested too deeply' }],
    });
  }
  return value;
}

/**
 * The body of a call that needs one, as an object.
 * @throws ProblemError `request_invalid`
 */
export function objectBody(body: unknown): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new ProblemError('request_invalid', 'The body must be a JSON object', {
      errors: [{ path: '', message: 'must be a JSON object' }],
    });
  }
  return body as Record<string, unknown>;
}
