import type { Revocation } from '@posthorn/contracts';
import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { Kind, Target } from './target.js';

/** A revocation as it is stored: what counts, whatever the bucket says. */
@Entity('revocation')
export class StoredRevocation implements Target {
  @PrimaryColumn({ type: 'text' })
  audience!: string;

  @PrimaryColumn({ type: 'text' })
  kind!: Kind;

  @PrimaryColumn({ type: 'text' })
  name!: string;

  /** Seconds since 1970; null for a token, which is revoked whatever its time. */
  @Column({
    name: 'issued_before',
    type: 'bigint',
    nullable: true,
    transformer: { from: secondsOf, to: (seconds: number | null) => seconds },
  })
  issuedBefore!: number | null;

  /** When it was last asked for. */
  @Column({ name: 'revoked_at', type: 'timestamptz' })
  revokedAt!: Date;
}

/** A stored revocation as the bucket and callers see it. */
export function revocationIn({ issuedBefore, revokedAt }: StoredRevocation): Revocation {
  return { issuedBefore, revokedAt: revokedAt.toISOString() };
}

/** PostgreSQL's bigint comes as text. */
export function secondsOf(value: string | null): number | null {
  return value === null ? null : Number(value);
}
