import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Origins } from './origins.js';

type CorsOptions = NonNullable<Parameters<NestFastifyApplication['enableCors']>[0]>;

/** What an answer tells beside its body: the pages that may call may read it. */
const EXPOSED = [
  'Posthorn-Position',
  'Posthorn-Event-Id',
  'Idempotency-Key',
  'Retry-After',
  'ETag',
  'X-Request-Id',
];
/** How long a browser need not ask again, in seconds. */
const MAX_AGE = 600;

/**
 * Which pages may call, and read the answers. Nothing is sent along by a browser of its own accord (no cookies, no
 * client certificates), so credentials in the sense of CORS stay off. Which headers a page sends is its own business.
 */
export function corsOptions(origins: Origins): CorsOptions {
  return {
    origin: origins.all
      ? '*'
      : (origin: string | undefined, judged) =>
          judged(null, origin !== undefined && origins.includes(origin)),
    methods: ['GET', 'POST', 'PUT', 'DELETE'],
    exposedHeaders: EXPOSED,
    maxAge: MAX_AGE,
    strictPreflight: false,
  };
}
