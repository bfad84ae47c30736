import { checkName, ProblemError, type RevokeRequest, revocationKey } from '@posthorn/contracts';

export type Kind = 'token' | 'user' | 'audience';

/** What a revocation ends: one token by its id, the tokens of one user, or all tokens of an audience. */
export interface Target {
  readonly audience: string;
  readonly kind: Kind;
  /** The token's id or the user's; empty for an audience. */
  readonly name: string;
}

/**
 * The longest id of a token or user, in bytes, as in a principal. The key in the bucket is part of a NATS
 * subject, escaped up to three times as long: past 4 KiB the server drops the whole connection.
 */
const NAME_BYTES = 255;

/** How far a clock may be ahead of ours, in seconds. */
const SKEW = 60;

/**
 * What a request wants revoked.
 * @throws {ProblemError} `request_invalid`
 */
export function targetOf({ audience, tokenId, sub, issuedBefore }: RevokeRequest): Target {
  checkName('audience', audience);
  if (tokenId != null && sub != null) throw invalid('sub', 'must not be given with tokenId');
  if (tokenId != null) {
    if (issuedBefore != null) throw invalid('issuedBefore', 'must not be given with tokenId');
    return { audience, kind: 'token', name: checkId('tokenId', tokenId) };
  }
  return sub == null
    ? { audience, kind: 'audience', name: '' }
    : { audience, kind: 'user', name: checkId('sub', sub) };
}

/**
 * Up to which time of issue a revocation of that target reaches, in seconds since 1970; null for a token.
 * @throws {ProblemError} `request_invalid` for a moment to come: it could not be taken back
 */
export function momentOf({ kind }: Target, { issuedBefore }: RevokeRequest): number | null {
  if (kind === 'token') return null;
  const now = Math.floor(Date.now() / 1_000);
  const moment = issuedBefore ?? now;
  if (moment > now + SKEW) throw invalid('issuedBefore', 'must be seconds since 1970, and not in the future');
  return moment;
}

/** The key of a target in the bucket `ph-revoked`. */
export function keyOf({ audience, kind, name }: Target): string {
  return kind === 'audience' ? revocationKey.audience(audience) : revocationKey[kind](audience, name);
}

function checkId(property: string, id: string): string {
  // PostgreSQL's text holds no U+0000, and a subject no lone surrogate.
  if (!id.isWellFormed() || id.includes('\0') || Buffer.byteLength(id) > NAME_BYTES) {
    throw invalid(property, `must be a text of 1 to ${NAME_BYTES} bytes without U+0000`);
  }
  return id;
}

function invalid(property: string, message: string): ProblemError {
  return new ProblemError('request_invalid', `${property} ${message}`, {
    errors: [{ path: `/${property}`, message }],
  });
}
