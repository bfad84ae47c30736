/** Calls of the auth app about API tokens (`ph-rpc.auth.*`; docs/protocols/livestorm.md, "API tokens"). */
import {
  ArrayMaxSize,
  ArrayNotEmpty,
  ArrayUnique,
  IsArray,
  IsIn,
  IsInt,
  IsISO8601,
  IsOptional,
  IsString,
  IsUUID,
  Length,
  Matches,
  Max,
  Min,
} from 'class-validator';
import { PAGE } from './inbox.js';

export const TOKEN_CALLS = {
  issue: 'ph-rpc.auth.issue-token',
  list: 'ph-rpc.auth.list-tokens',
  revoke: 'ph-rpc.auth.revoke-token',
  check: 'ph-rpc.auth.check-token',
} as const;

/** What an API token may be for. */
export const API_SCOPES = ['publish:organization', 'publish:event', 'publish:session'] as const;

export type ApiScope = (typeof API_SCOPES)[number];

/** API tokens that an audience may have at once: those neither revoked nor long expired. */
export const API_TOKEN_LIMIT = 100;

/** SHA-256 in hex. */
const HASH = /^[0-9a-f]{64}$/;

class AudienceRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;
}

/** A new token. Its secret is made by the caller, who alone ever has it: what travels is its hash. */
export class IssueTokenRequest extends AudienceRequest {
  /** What tells it from others in a list. */
  @IsString()
  @Length(1, 100)
  name!: string;

  @IsArray()
  @ArrayNotEmpty()
  @ArrayMaxSize(API_SCOPES.length)
  @ArrayUnique()
  @IsIn(API_SCOPES, { each: true })
  scopes!: ApiScope[];

  /** SHA-256 of the secret, in hex. */
  @Matches(HASH)
  hash!: string;

  /** The `sub` of the admin who asked for it; absent where the JWT named none. */
  @IsOptional()
  @IsString()
  @Length(1, 255)
  created_by?: string;

  /** A moment to come, as RFC 3339 writes it. Absent: it ends by being revoked. */
  @IsOptional()
  @IsISO8601({ strict: true, strictSeparator: true })
  @Matches(/T.+(Z|[+-]\d\d:\d\d)$/, { message: 'expires_at must be a date and time with its zone' })
  @Length(1, 40)
  expires_at?: string;
}

export class ListTokensRequest extends AudienceRequest {
  @IsInt()
  @Min(1)
  @Max(PAGE.max)
  limit: number = PAGE.default;

  /** `next_cursor` of the page before. */
  @IsOptional()
  @IsString()
  @Length(1, 200)
  cursor?: string;
}

/** One token. What is no id, and the id of another audience's token, are answered `token_not_found`. */
export class RevokeTokenRequest extends AudienceRequest {
  @IsString()
  id!: string;
}

/** Whether a token is good: answered `unauthorized` or `token_expired` where it is not. */
export class CheckTokenRequest {
  @IsUUID()
  id!: string;

  /** SHA-256 of the secret that was shown, in hex. */
  @Matches(HASH)
  hash!: string;
}

/** An API token as it is listed: never with its secret. */
export interface ApiTokenItem {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly ApiScope[];
  /** The `sub` of the admin who issued it. */
  readonly created_by: string | null;
  /** ISO 8601, as all times here. */
  readonly created_at: string;
  /** To the minute; null before the first use. */
  readonly last_used_at: string | null;
  /** Null for one that ends only by being revoked. */
  readonly expires_at: string | null;
}

/** A page of the audience's tokens that were not revoked, the newest first. */
export interface ApiTokenPage {
  readonly items: readonly ApiTokenItem[];
  /** Null at the end. */
  readonly next_cursor: string | null;
}

/** As `RevokeReply.effective`. */
export interface RevokeTokenReply {
  readonly effective: boolean;
}

/** What a good token stands for. */
export interface CheckTokenReply {
  readonly audience: string;
  readonly scopes: readonly ApiScope[];
  /** Seconds since 1970; null for one without end. */
  readonly expiresAt: number | null;
}
