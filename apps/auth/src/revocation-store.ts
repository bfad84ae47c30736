import type { DataSource, EntityManager, Repository } from 'typeorm';
import { StoredRevocation, secondsOf } from './entities.js';
import type { Target } from './target.js';

const PAGE = 1_000;

/** The revocations in PostgreSQL. */
export class RevocationStore {
  readonly #rows: Repository<StoredRevocation>;

  constructor(source: DataSource) {
    this.#rows = source.getRepository(StoredRevocation);
  }

  /**
   * Stores a revocation and returns what is stored now: an earlier one that reaches further keeps its reach.
   * @param manager the transaction of which it is part
   */
  async record(
    { audience, kind, name }: Target,
    issuedBefore: number | null,
    manager: EntityManager = this.#rows.manager,
  ): Promise<StoredRevocation> {
    const [row] = await manager.query(
      `INSERT INTO revocation (audience, kind, name, issued_before, revoked_at)
       VALUES ($1, $2, $3, $4, now())
       ON CONFLICT (audience, kind, name) DO UPDATE SET
         issued_before = GREATEST(revocation.issued_before, EXCLUDED.issued_before),
         revoked_at = GREATEST(revocation.revoked_at, EXCLUDED.revoked_at)
       RETURNING issued_before, revoked_at`,
      [audience, kind, name, issuedBefore],
    );
    const stored = { issuedBefore: secondsOf(row.issued_before), revokedAt: row.revoked_at };
    return this.#rows.create({ audience, kind, name, ...stored });
  }

  /** All of them, in portions. */
  async *all(): AsyncGenerator<StoredRevocation[]> {
    let last: StoredRevocation | undefined;
    for (;;) {
      const query = this.#rows.createQueryBuilder('row').orderBy('row.audience').addOrderBy('row.kind');
      query.addOrderBy('row.name').limit(PAGE);
      if (last) query.where('(row.audience, row.kind, row.name) > (:audience, :kind, :name)', { ...last });
      const page = await query.getMany();
      if (page.length > 0) yield page;
      if (page.length < PAGE) return;
      last = page.at(-1);
    }
  }

  /** Deletes a revocation, unless it has been asked for again since that time. */
  async forget({ audience, kind, name }: Target, before: Date): Promise<void> {
    await this.#rows
      .createQueryBuilder()
      .delete()
      .where({ audience, kind, name })
      .andWhere('revoked_at <= :before', { before })
      .execute();
  }
}
