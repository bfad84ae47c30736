import type { Quota, ReportUsageReply, ReportUsageRequest, Usage } from '@posthorn/contracts';
import type { DataSource } from 'typeorm';

/** What audiences have published today, added up over all processes that take events in for them. */
export class Usages {
  constructor(
    private readonly source: DataSource,
    private readonly quota: Quota,
  ) {}

  /**
   * Keeps what a process reports, and tells what the others have reported. Of several reports of a process the
   * largest count stays: its counters only grow. Audiences that do not exist are left out.
   */
  async report({ process, day, usage }: ReportUsageRequest): Promise<ReportUsageReply> {
    const stored = usage.filter(({ publishes }) => publishes > 0);
    if (stored.length > 0) {
      await this.source.query(
        `INSERT INTO usage AS known (audience_id, day, process, publishes, bytes)
         SELECT audience.id, 'epoch'::date + $2::integer, $1, max(told.publishes), max(told.bytes)
         FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS told (name, publishes, bytes)
         JOIN audience USING (name)
         GROUP BY audience.id
         ON CONFLICT (audience_id, day, process) DO UPDATE
         SET publishes = greatest(known.publishes, excluded.publishes),
             bytes = greatest(known.bytes, excluded.bytes)
         WHERE known.publishes < excluded.publishes OR known.bytes < excluded.bytes`,
        [
          process,
          day,
          stored.map(({ audience }) => audience),
          stored.map(({ publishes }) => publishes),
          stored.map(({ bytes }) => bytes),
        ],
      );
    }
    const others: Counts[] = await this.source.query(
      `SELECT audience.name AS audience, coalesce(sum(usage.publishes), 0) AS publishes,
              coalesce(sum(usage.bytes), 0) AS bytes
       FROM audience
       LEFT JOIN usage ON usage.audience_id = audience.id
         AND usage.day = 'epoch'::date + $2::integer AND usage.process <> $1
       WHERE audience.name = ANY ($3::text[])
       GROUP BY audience.id`,
      [process, day, usage.map(({ audience }) => audience)],
    );
    return { quota: this.quota, others: others.map(numbers) };
  }

  /** Forgets what was before yesterday: a gateway whose clock is a little behind still counts for yesterday. */
  async forget(): Promise<void> {
    await this.source.query(`DELETE FROM usage WHERE day < (now() AT TIME ZONE 'UTC')::date - 1`);
  }
}

/** PostgreSQL's sums come as text. */
type Counts = Record<keyof Usage, string>;

function numbers({ audience, publishes, bytes }: Counts): Usage {
  return { audience, publishes: Number(publishes), bytes: Number(bytes) };
}
