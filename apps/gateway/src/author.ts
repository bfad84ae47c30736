import type { Draft } from '@posthorn/bus/platform';
import { isPrivileged, PAYLOAD_LIMIT, type Principal, principalId } from '@posthorn/contracts';

/** What a principal is to its drafts: whose they are, who made them, and how large they may be. */
export function authorOf(principal: Principal): Pick<Draft, 'audience' | 'principal' | 'source' | 'limit'> {
  const { audience, role, sub } = principal;
  return {
    audience,
    principal: principalId(principal),
    source: `/${role}/${encodeURIComponent(sub ?? '-')}`,
    limit: isPrivileged(principal) ? PAYLOAD_LIMIT.service : PAYLOAD_LIMIT.user,
  };
}
