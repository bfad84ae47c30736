import { SignJWT } from 'jose';

/**
 * Claims of a token; those not given are audience `demo`, role `user`, subject `alice`, valid for an hour.
 * @typedef {Record<string, unknown> & {
 *   aud?: string,
 *   sub?: string,
 *   role?: string,
 *   exp?: number | null,
 * }} TokenClaims `exp` in seconds since 1970; null for none
 */

/**
 * Signs a token as an identity provider with the shared secret would.
 * @param {string} jwtSecret
 * @param {TokenClaims} [claims]
 * @returns {Promise<string>}
 */
export async function signToken(jwtSecret, claims = {}) {
  const { exp = Math.floor(Date.now() / 1000) + 3600, ...rest } = claims;
  const payload = { aud: 'demo', sub: 'alice', role: 'user', ...rest, ...(exp !== null && { exp }) };
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(jwtSecret));
}
