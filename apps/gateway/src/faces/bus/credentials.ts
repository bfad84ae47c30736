/** How a Tryton client says who it is (docs/protocols/tryton.md). */
import { type Principal, ProblemError } from '@posthorn/contracts';
import type { GatewayCore } from '../../core.js';
import { bearerOf, verified } from '../../http/caller.js';

/**
 * The caller: `Session <base64(login:user_id:session)>`, whose session is a JWT for that user, or a bearer JWT; in
 * either case for the audience that the path names.
 * @throws ProblemError `unauthorized`, `token_expired`
 */
export async function callerOf(
  core: GatewayCore,
  database: string,
  authorization: string | undefined,
): Promise<Principal> {
  const session = sessionOf(authorization);
  const principal = await verified(core, session?.token ?? bearerOf(authorization));
  if (session && principal.sub !== session.user) {
    throw new ProblemError('unauthorized', "The session is another user's");
  }
  if (principal.audience !== database) {
    throw new ProblemError('unauthorized', 'The session is for another database');
  }
  return principal;
}

/** A login may hold colons; a user's id and a JWT do not. */
function sessionOf(header: string | undefined): { user: string; token: string } | undefined {
  const match = /^Session +([A-Za-z0-9+/=_-]+) *$/i.exec(header ?? '');
  if (!match) return undefined;
  const parts = Buffer.from(match[1]!, 'base64').toString('utf8').split(':');
  const [user, token] = parts.slice(-2);
  if (parts.length < 3 || !user || !token) {
    throw new ProblemError('unauthorized', 'The session is not base64 of login:user_id:session');
  }
  return { user, token };
}
