import {
  type CountUnreadTimelineRequest,
  type ListTimelineRequest,
  ProblemError,
  type SeeTimelineRequest,
  type TimelineItem,
  type TimelinePage,
  type TimelineSeen,
  UNREAD_LIMIT,
} from '@posthorn/contracts';
import type { DataSource } from 'typeorm';
import { formatPlace, isRowId, type Place, parsePlace } from '../place.js';

/** A page's size, in bytes; a single entry may be as large. */
const PAGE_BYTES = 1024 * 1024;

/** Above every entry: where the first page begins. */
const TOP: Place = { ordinal: String(2n ** 63n - 1n), id: 'ffffffff-ffff-ffff-ffff-ffffffffffff' };

interface Scope {
  readonly audience: string;
  readonly target: string;
  readonly reader?: string;
}

/** Reads timelines, and keeps how far users have seen them. */
export class Timeline {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /**
   * A page, newest first. Only the content that the page takes is read.
   * @throws ProblemError `forbidden`; `request_invalid` for a cursor that is none
   */
  async list(request: ListTimelineRequest): Promise<TimelinePage> {
    const { audience, target, limit, cursor } = request;
    const place = cursor === undefined ? TOP : parsePlace(cursor);
    await this.#assertMayRead(request);
    const rows: { id: string; ordinal: string; found: number; content: Omit<TimelineItem, 'id'> }[] =
      await this.#source.query(
        `WITH found AS MATERIALIZED (
           SELECT e.activity_id AS id, e.ordinal
           FROM timeline_entry e
           WHERE e.audience = $1 AND e.target = $2 AND (e.ordinal, e.activity_id) < ($3::bigint, $4::uuid)
           ORDER BY e.ordinal DESC, e.activity_id DESC
           LIMIT $5),
         page AS MATERIALIZED (
           SELECT f.id, f.ordinal,
                  row_number() OVER newest AS nth, sum(a.size) OVER newest AS bytes, count(*) OVER () AS found
           FROM found f JOIN activity a ON a.id = f.id
           WINDOW newest AS (ORDER BY f.ordinal DESC, f.id DESC))
         SELECT p.id, p.ordinal, p.found::int, a.content
         FROM page p JOIN activity a ON a.id = p.id
         WHERE p.nth = 1 OR (p.nth <= $6 AND p.bytes <= $7)
         ORDER BY p.nth`,
        [audience, target, place.ordinal, place.id, limit + 1, limit, PAGE_BYTES],
      );
    const last = rows.at(-1);
    return {
      items: rows.map(({ id, content }) => ({ id, ...content }) as TimelineItem),
      next_cursor: last && last.found > rows.length ? formatPlace(last) : null,
    };
  }

  /**
   * Notes that a user has seen an entry and all before it. Never goes back: of two tabs the further one counts.
   * @throws ProblemError `forbidden`, `timeline_entry_not_found`
   */
  async see(request: SeeTimelineRequest): Promise<TimelineSeen> {
    await this.#assertMayRead(request);
    const { audience, target, user, id } = request;
    const entries: unknown[] = isRowId(id)
      ? await this.#source.query(
          `WITH entry AS (
             SELECT e.ordinal, e.activity_id FROM timeline_entry e
             WHERE e.activity_id = $4 AND e.target = $3 AND e.audience = $1),
           moved AS (
             INSERT INTO timeline_seen AS s (audience, user_id, target, ordinal, activity_id)
             SELECT $1, $2, $3, ordinal, activity_id FROM entry
             ON CONFLICT (audience, user_id, target) DO UPDATE
               SET ordinal = excluded.ordinal, activity_id = excluded.activity_id
               WHERE (s.ordinal, s.activity_id) < (excluded.ordinal, excluded.activity_id))
           SELECT 1 FROM entry`,
          [audience, user, target, id],
        )
      : [];
    if (entries.length === 0) {
      throw new ProblemError('timeline_entry_not_found', 'The timeline has no such entry');
    }
    return this.#seen(request);
  }

  /** @throws ProblemError `forbidden` */
  async countUnread(request: CountUnreadTimelineRequest): Promise<TimelineSeen> {
    await this.#assertMayRead(request);
    return this.#seen(request);
  }

  async #seen({ audience, target, user }: CountUnreadTimelineRequest): Promise<TimelineSeen> {
    const [seen]: [TimelineSeen] = await this.#source.query(
      `SELECT s.activity_id AS last_seen,
              (SELECT count(*)::int
               FROM (SELECT 1 FROM timeline_entry e
                     WHERE e.audience = $1 AND e.target = $3
                       AND (e.ordinal, e.activity_id) >
                           (COALESCE(s.ordinal, 0), COALESCE(s.activity_id, '00000000-0000-0000-0000-000000000000'))
                     LIMIT $4) AS counted) AS unread_count
       FROM (VALUES (1)) AS one
       LEFT JOIN timeline_seen s ON s.audience = $1 AND s.user_id = $2 AND s.target = $3`,
      [audience, user, target, UNREAD_LIMIT],
    );
    return seen;
  }

  /** Users read their own timeline, and those of the communities that they are known to belong to or manage. */
  async #assertMayRead({ audience, target, reader }: Scope): Promise<void> {
    if (reader === undefined || reader === target) return;
    const [{ allowed }]: [{ allowed: boolean }] = await this.#source.query(
      `SELECT EXISTS (
                SELECT 1 FROM community_member m
                LEFT JOIN community c ON c.audience = m.audience AND c.id = m.community
                WHERE m.audience = $1 AND m.community = $2 AND m.user_id = $3 AND m.present
                  AND m.ordinal >= COALESCE(c.members_ordinal, 0))
              OR EXISTS (
                SELECT 1 FROM community c WHERE c.audience = $1 AND c.id = $2 AND $3 = ANY (c.managers))
              AS allowed`,
      [audience, target, reader],
    );
    if (!allowed) {
      throw new ProblemError('forbidden', 'A user reads its own timeline and those of its communities');
    }
  }
}
