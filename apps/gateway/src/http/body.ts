/** Bodies: JSON only, and an empty one counts as none, whatever its content type says. */
import { exceedsDepth, ProblemError } from '@posthorn/contracts';
import type { FastifyInstance } from 'fastify';

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json$/i;

/** Bytes of a body: a payload of a service, with what stands around it. */
export const BODY_LIMIT = 1_200_000;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Replaces Fastify's parsers, which answer an empty JSON body with an error. */
export function parseBodies(fastify: FastifyInstance): void {
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: BODY_LIMIT }, (request, body, done) => {
    try {
      done(null, parseBody(body as Buffer, request.headers['content-type']));
    } catch (error) {
      done(error as Error, undefined);
    }
  });
}

function parseBody(body: Buffer, contentType: string | undefined): unknown {
  if (body.length === 0) return undefined;
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
