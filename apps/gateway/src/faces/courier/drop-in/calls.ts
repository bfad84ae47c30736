import type { FastifyRequest } from 'fastify';

/** The calls of the Courier face, as they are routed. */
const CALLS: ReadonlySet<string | undefined> = new Set([
  '/v1/audience',
  '/v1/topic',
  '/v1/hook',
  '/v1/sign',
  '/v1/revocations',
]);

/** Whether a call is to be answered as the original server did: one that does not ask for the contract. */
export function wantsOriginal({ headers, routeOptions }: FastifyRequest): boolean {
  return CALLS.has(routeOptions.url) && headers['posthorn-version'] !== '1';
}
