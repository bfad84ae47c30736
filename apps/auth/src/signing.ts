import { type KeyPurpose, ProblemError, type SignReply, type SignRequest } from '@posthorn/contracts';
import type { KeyRing, RevocationList, Tally, Verifier } from '@posthorn/service';

/** How long a key opens, in seconds: to connect a socket, and for the stream of a token without an end. */
const LIFETIME = { connect: 60, endless: 24 * 3600 } as const;
/** `Date` ends here, in seconds since 1970. */
const NEVER = 8_640_000_000_000;

/** What {@link Signing} needs. */
export interface SigningOptions {
  readonly verifier: Verifier;
  readonly keys: KeyRing;
  readonly revocations: RevocationList;
  /** A socket key lives as long as its token, as with the original Courier: that of an endless one for ever. */
  readonly longSocketKeys: boolean;
  /** Counts the keys handed out. */
  readonly sealed: Readonly<Record<KeyPurpose, Tally>>;
}

/** Seals the principal of a JWT into a key. */
export class Signing {
  constructor(private readonly options: SigningOptions) {}

  /**
   * A key for the bearer of a token: no longer valid than the token itself.
   * @throws {ProblemError} `unauthorized`, `token_expired`; `unavailable` as {@link Verifier.verify}
   */
  async sign({ token, purpose }: SignRequest): Promise<SignReply> {
    const { verifier, keys, revocations, longSocketKeys, sealed } = this.options;
    const principal = await verifier.verify(token);
    if (revocations.isRevoked(principal)) {
      throw new ProblemError('unauthorized', 'The token has been revoked');
    }
    const now = Math.floor(Date.now() / 1_000);
    const long = purpose === 'socket' && longSocketKeys;
    const tokenEnds = principal.expiresAt ?? (long ? NEVER : now + LIFETIME.endless);
    const toConnect = purpose === 'socket' && !long;
    const expiresAt = toConnect ? Math.min(now + LIFETIME.connect, tokenEnds) : tokenEnds;
    const key = await keys.seal(principal, { purpose, expiresAt });
    sealed[purpose].inc();
    return { key, expires: new Date(expiresAt * 1_000).toISOString() };
  }
}
