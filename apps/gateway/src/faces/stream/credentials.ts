/** Who asks for a stream: a browser's `EventSource` can send no header, so its key is in the URL. */
import { type Principal, ProblemError } from '@posthorn/contracts';
import type { FastifyRequest } from 'fastify';
import type { GatewayCore } from '../../core.js';
import { bearerOf, verified } from '../../http/caller.js';

/**
 * The caller, by `Authorization` or by a key.
 * @throws ProblemError `unauthorized`, `token_expired`, `audience_not_found`; `forbidden` for a page of another origin
 */
export async function callerOf(
  core: GatewayCore,
  { headers }: Pick<FastifyRequest, 'headers'>,
  key: string | undefined,
): Promise<Principal> {
  if (!core.origins.admits(headers)) {
    throw new ProblemError('forbidden', 'The origin is not allowed');
  }
  const principal =
    headers.authorization === undefined && key !== undefined
      ? await core.keys.open(key, 'stream')
      : await verified(core, bearerOf(headers.authorization));
  if (core.revocations.isRevoked(principal)) {
    throw new ProblemError('unauthorized', 'The token was revoked');
  }
  await core.bus.topics.audience(principal.audience);
  return principal;
}
