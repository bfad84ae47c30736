/** Calls of the auth app (`ph-rpc.auth.*`). */
import { IsIn, IsInt, IsOptional, IsString, Length, Min } from 'class-validator';

export const AUTH_CALLS = {
  sign: 'ph-rpc.auth.sign',
  revoke: 'ph-rpc.auth.revoke',
} as const;

/** What a key opens: `/ws` within 60 s, or `/v1/stream` until the JWT expires. */
export type KeyPurpose = 'socket' | 'stream';

/** The JWT itself travels, not a principal: nobody on the bus can have a key made for an identity it made up. */
export class SignRequest {
  @IsString()
  @Length(1, 16_384)
  token!: string;

  @IsIn(['socket', 'stream'])
  purpose!: KeyPurpose;
}

export interface SignReply {
  /** Encrypted, for one audience. */
  readonly key: string;
  /** ISO 8601. */
  readonly expires: string;
}

/** Revokes one token, the tokens of one user, or all tokens of an audience, issued until a moment. */
export class RevokeRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** `jti` of one token. */
  @IsOptional()
  @IsString()
  @Length(1, 255)
  tokenId?: string;

  /** `sub` of the user whose tokens end. */
  @IsOptional()
  @IsString()
  @Length(1, 255)
  sub?: string;

  /** Seconds since 1970: tokens issued at or before it are revoked. Default: now. Not with `tokenId`. */
  @IsOptional()
  @IsInt()
  @Min(0)
  issuedBefore?: number;
}

/** One entry of the bucket `ph-revoked`, under one of `revocationKey`. */
export interface Revocation {
  /** Tokens issued at or before it (seconds since 1970) are revoked; null: whatever their time. */
  readonly issuedBefore: number | null;
  /** ISO 8601. */
  readonly revokedAt: string;
}

/** What a revocation came to. It is stored in any case. */
export interface RevokeReply extends Revocation {
  /** Whether it is in the bucket, and so known to every gateway; if not, it will be as soon as NATS allows. */
  readonly effective: boolean;
}
