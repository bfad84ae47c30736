import type { ApiScope, ApiTokenItem } from '@posthorn/contracts';
import { Column, Entity, PrimaryColumn } from 'typeorm';

/** An API token as it is stored: what counts, whatever a gateway remembers. */
@Entity('api_token')
export class StoredToken {
  /** A UUIDv7: in the order in which they were issued. */
  @PrimaryColumn({ type: 'uuid' })
  id!: string;

  @Column({ type: 'text' })
  audience!: string;

  @Column({ type: 'text' })
  name!: string;

  @Column({ type: 'text', array: true })
  scopes!: ApiScope[];

  /**
   * SHA-256 of the secret. That is enough here: the secret is 256 random bits and no password, so there is
   * nothing to guess that a slow hash would make dearer, and each use would have to pay for one.
   */
  @Column({ type: 'bytea' })
  hash!: Buffer;

  @Column({ name: 'created_by', type: 'text', nullable: true })
  createdBy!: string | null;

  @Column({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;

  /** To the minute. */
  @Column({ name: 'last_used_at', type: 'timestamptz', nullable: true })
  lastUsedAt!: Date | null;

  @Column({ name: 'expires_at', type: 'timestamptz', nullable: true })
  expiresAt!: Date | null;

  @Column({ name: 'revoked_at', type: 'timestamptz', nullable: true })
  revokedAt!: Date | null;
}

/** A stored token as its audience's admins see it. */
export function itemOf(token: StoredToken): ApiTokenItem {
  return {
    id: token.id,
    name: token.name,
    scopes: token.scopes,
    created_by: token.createdBy,
    created_at: token.createdAt.toISOString(),
    last_used_at: token.lastUsedAt?.toISOString() ?? null,
    expires_at: token.expiresAt?.toISOString() ?? null,
  };
}
