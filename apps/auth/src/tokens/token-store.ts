import { API_TOKEN_LIMIT, ProblemError } from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import { type DataSource, type EntityManager, IsNull, LessThan, type Repository } from 'typeorm';
import type { Target } from '../target.js';
import { StoredToken } from './stored-token.js';

/** How long a token that has ended is kept, for whoever looks into what happened. */
const KEPT = '30 days';

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The API tokens in PostgreSQL. */
export class TokenStore {
  readonly #source: DataSource;
  readonly #rows: Repository<StoredToken>;

  constructor(source: DataSource) {
    this.#source = source;
    this.#rows = source.getRepository(StoredToken);
  }

  /**
   * Stores a new token. Those of its audience that ended long ago go.
   * @throws ProblemError `token_limit`
   */
  async insert(
    token: Pick<StoredToken, 'id' | 'audience' | 'name' | 'scopes' | 'hash' | 'createdBy' | 'expiresAt'>,
  ): Promise<StoredToken> {
    const { audience } = token;
    return withTransaction(this.#source, async (manager) => {
      await lock(manager, audience);
      await manager.query(
        `DELETE FROM api_token WHERE audience = $1 AND LEAST(revoked_at, expires_at) < now() - $2::interval`,
        [audience, KEPT],
      );
      const count = await manager.countBy(StoredToken, { audience, revokedAt: IsNull() });
      if (count >= API_TOKEN_LIMIT) {
        throw new ProblemError(
          'token_limit',
          `The audience has ${count} API tokens: one has to be revoked first`,
        );
      }
      const row = { ...token, createdAt: new Date(), lastUsedAt: null, revokedAt: null };
      return manager.save(StoredToken, manager.create(StoredToken, row));
    });
  }

  /** The token with that id, whatever became of it. */
  find(id: string): Promise<StoredToken | null> {
    return this.#rows.findOneBy({ id });
  }

  /** Tokens of an audience that were not revoked, the newest first. */
  page(audience: string, limit: number, before: string | undefined): Promise<StoredToken[]> {
    return this.#rows.find({
      where: { audience, revokedAt: IsNull(), ...(before !== undefined && { id: LessThan(before) }) },
      order: { id: 'DESC' },
      take: limit,
    });
  }

  /** Notes that a token is in use, once in a minute. */
  async use({ id, lastUsedAt }: StoredToken): Promise<void> {
    const minute = new Date(Math.floor(Date.now() / 60_000) * 60_000);
    if (lastUsedAt && lastUsedAt >= minute) return;
    await this.#rows.query(
      `UPDATE api_token SET last_used_at = $2 WHERE id = $1 AND (last_used_at < $2 OR last_used_at IS NULL)`,
      [id, minute],
    );
  }
}

/** Whether a text is the id of a token, as it is written: another spelling would be another key of the bucket. */
export function isTokenId(id: string): boolean {
  return UUID.test(id);
}

/**
 * Ends the API tokens that a revocation covers: the one that it names, or all of an audience that were issued
 * until then. Those of a user are none: they belong to the audience, whoever asked for them.
 * @returns the ids of those that it ended
 */
export async function endTokens(
  manager: EntityManager,
  { audience, kind, name }: Target,
  issuedBefore: number | null,
): Promise<string[]> {
  if (kind === 'user' || (kind === 'token' && !isTokenId(name))) return [];
  await lock(manager, audience);
  const [rows]: [{ id: string }[], number] = await manager.query(
    `UPDATE api_token SET revoked_at = now()
     WHERE audience = $1 AND revoked_at IS NULL
       AND ${kind === 'token' ? 'id = $2' : `date_trunc('second', created_at) <= to_timestamp($2)`}
     RETURNING id`,
    [audience, kind === 'token' ? name : issuedBefore],
  );
  return rows.map(({ id }) => id);
}

/** Until the transaction ends: a token is issued before or after its audience's others are counted or ended. */
async function lock(manager: EntityManager, audience: string): Promise<void> {
  await manager.query(`SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, [`api-token:${audience}`]);
}
