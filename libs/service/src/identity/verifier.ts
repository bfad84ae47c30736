import { type Principal, ProblemError, principalOfClaims } from '@posthorn/contracts';
import {
  type CryptoKey,
  createRemoteJWKSet,
  decodeProtectedHeader,
  errors,
  type JWKSCacheInput,
  type JWSHeaderParameters,
  type JWTPayload,
  jwksCache,
  jwtVerify,
} from 'jose';

/** Who signs the tokens. At least one of `jwtSecret` and `jwksUrl` is needed. */
export interface VerifierOptions {
  /** Shared secret, for HS256. */
  readonly jwtSecret?: string | undefined;
  /** Public keys, for RS256, ES256 and EdDSA. */
  readonly jwksUrl?: string | undefined;
  /** The `iss` that tokens have to carry; not checked when not given. */
  readonly issuer?: string | undefined;
  /** In production a token has to end. */
  readonly production: boolean;
}

/** Turns a JWT into the principal it stands for. */
export interface Verifier {
  /**
   * @throws {ProblemError} `token_expired` for a token whose only fault is its age; `unavailable` while the
   *   key that it names cannot be fetched; `unauthorized` for anything else, saying what is wrong
   */
  verify(token: string): Promise<Principal>;
}

/** The longest token that is looked at, in bytes. */
export const TOKEN_LIMIT = 16 * 1024;

/** `Date` ends here, in seconds since 1970; a time beyond it is no time. */
const LAST_SECOND = 8_640_000_000_000;

/** The verification key for a token's header, and the algorithms that it may be used with. */
interface KeySource {
  readonly algorithms: string[];
  find(header: JWSHeaderParameters): Promise<CryptoKey | Uint8Array>;
}

/**
 * A verifier of HS256 with a shared secret, of RS256, ES256 and EdDSA with a JWKS, or of both: then the
 * algorithm in the token's header chooses. A key is never used with the other kind's algorithms.
 */
export function createVerifier({ jwtSecret, jwksUrl, issuer, production }: VerifierOptions): Verifier {
  const sources = [
    ...(jwtSecret ? [sharedSecret(jwtSecret)] : []),
    ...(jwksUrl ? [publishedKeys(new URL(jwksUrl))] : []),
  ];
  if (sources.length === 0) throw new RangeError('a verifier needs jwtSecret or jwksUrl');
  const accepted = sources.flatMap(({ algorithms }) => algorithms).join(', ');
  const options = { requiredClaims: production ? ['exp'] : [], ...(issuer ? { issuer } : {}) };

  return {
    async verify(token) {
      if (Buffer.byteLength(token) > TOKEN_LIMIT) {
        throw unauthorized(`The token is longer than ${TOKEN_LIMIT} bytes`);
      }
      const alg = algorithmOf(token);
      const source = sources.find(({ algorithms }) => algorithms.includes(alg));
      if (!source) throw unauthorized(`The token must be signed with ${accepted}`);
      let claims: JWTPayload;
      try {
        const { algorithms } = source;
        claims = (await jwtVerify(token, (header) => source.find(header), { ...options, algorithms }))
          .payload;
      } catch (error) {
        throw refusal(error);
      }
      for (const claim of ['iat', 'nbf', 'exp'] as const) {
        if (Math.abs(claims[claim] ?? 0) > LAST_SECOND) {
          throw unauthorized(`The token's claim ${claim} must be seconds since 1970`);
        }
      }
      return principalOfClaims(claims);
    },
  };
}

function sharedSecret(secret: string): KeySource {
  const key = new TextEncoder().encode(secret);
  return { algorithms: ['HS256'], find: async () => key };
}

/** How old a copy of the keys gets before it is fetched anew, and the least time between two attempts. */
const JWKS_AGE_MS = 10 * 60_000;
const JWKS_COOLDOWN_MS = 30_000;

/**
 * The keys behind a URL. An old copy is renewed beside the traffic and stays in use until that works, so that
 * an identity provider that is away stops nobody whose key is known.
 */
function publishedKeys(url: URL): KeySource {
  const cache: { uat?: number } = {};
  const keys = createRemoteJWKSet(url, {
    [jwksCache]: cache as JWKSCacheInput,
    cacheMaxAge: Number.POSITIVE_INFINITY,
    cooldownDuration: JWKS_COOLDOWN_MS,
    timeoutDuration: 5_000,
  });
  let triedAt = 0;
  const renew = () => {
    const now = Date.now();
    if (cache.uat === undefined || now < Math.max(cache.uat + JWKS_AGE_MS, triedAt + JWKS_COOLDOWN_MS))
      return;
    triedAt = now;
    keys.reload().catch(() => {});
  };
  return {
    algorithms: ['RS256', 'ES256', 'EdDSA'],
    async find(header) {
      renew();
      try {
        return await keys(header);
      } catch (cause) {
        if (cause instanceof errors.JWKSNoMatchingKey) throw unauthorized('The token names an unknown key');
        if (cause instanceof errors.JWKSMultipleMatchingKeys) {
          throw unauthorized('The token must name its key (kid): several fit');
        }
        throw new ProblemError('unavailable', 'The keys that tokens are signed with cannot be fetched', {
          cause,
        });
      }
    },
  };
}

function algorithmOf(token: string): string {
  try {
    return String(decodeProtectedHeader(token).alg);
  } catch {
    throw unauthorized('The token is not a JWT');
  }
}

/** jose's errors carry the claims: they are described, not kept as a cause. */
function refusal(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  if (error instanceof errors.JWTExpired) return new ProblemError('token_expired', 'The token has expired');
  if (error instanceof errors.JWTClaimValidationFailed) {
    const { claim, reason } = error;
    if (reason === 'missing') return unauthorized(`The token has no claim ${claim}`);
    if (reason === 'invalid') return unauthorized(`The token's claim ${claim} must be seconds since 1970`);
    return unauthorized(
      claim === 'nbf' ? 'The token is not valid yet' : `The token's ${claim} is not accepted here`,
    );
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return unauthorized("The token's signature is not valid");
  }
  if (error instanceof errors.JOSEError) return unauthorized('The token is not a JWT that is accepted here');
  // A key that cannot be used, for example an RSA key of under 2048 bits.
  return unauthorized("The token's signature cannot be verified with the key that it names");
}

function unauthorized(detail: string): ProblemError {
  return new ProblemError('unauthorized', detail);
}
