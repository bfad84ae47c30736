import type {
  InboxCount,
  InboxRequest,
  ListNotificationsRequest,
  NotificationPage,
  UserNotification,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { formatPlace, type Place, parsePlace } from '../place.js';
import { Inbox, type NotificationRow, userNotification } from './entities.js';

/** A page's size, in bytes; a single notification may be as large. */
const PAGE_BYTES = 1024 * 1024;

/** Reads inboxes. */
export class InboxReader {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /**
   * A page, newest first, with the counts of the same moment. Acknowledged and withdrawn notifications are
   * neither listed nor counted.
   * @throws ProblemError `request_invalid` for a cursor that is none
   */
  async list(request: ListNotificationsRequest): Promise<NotificationPage> {
    const place = request.cursor === undefined ? undefined : parsePlace(request.cursor);
    return withTransaction(
      this.#source,
      async (tx) => {
        const rows = await readRows(tx, request, place);
        const items = fitting(rows.slice(0, request.limit).map(userNotification));
        const last = rows.length > items.length ? rows[items.length - 1] : undefined;
        return {
          items,
          ...(await countsOf(tx, request)),
          next_cursor: last ? formatPlace(last) : null,
        };
      },
      { isolation: 'REPEATABLE READ' },
    );
  }

  count(request: InboxRequest): Promise<InboxCount> {
    return countsOf(this.#source.manager, request);
  }
}

/** How an inbox stands; one that nobody wrote to yet is empty. */
export async function countsOf(
  manager: EntityManager,
  { audience, user }: InboxRequest,
): Promise<InboxCount> {
  const inbox = await manager.findOneBy(Inbox, { audience, userId: user });
  return { unread_count: inbox?.unreadCount ?? 0, version: inbox?.version ?? 0 };
}

/** The rows of a page, and one more where there are more. Read and unread ones are apart in the index: both merge. */
function readRows(
  tx: EntityManager,
  { audience, user, read, limit }: ListNotificationsRequest,
  place: Place | undefined,
): Promise<(NotificationRow & Place)[]> {
  const rowsThat = (are: boolean) =>
    `(SELECT n.id, n.target, n.category, n.interactive, n.content, n.created_at AS "createdAt",
             n.read, n.acknowledged, n.withdrawn, n.ordinal
      FROM notification n
      WHERE n.audience = $1 AND n.target = $2 AND n.read = ${are} AND NOT n.acknowledged AND NOT n.withdrawn
        ${place ? 'AND (n.ordinal, n.id) < ($4, $5)' : ''}
      ORDER BY n.ordinal DESC, n.id DESC
      LIMIT $3)`;
  const rows = read === undefined ? `${rowsThat(false)} UNION ALL ${rowsThat(true)}` : rowsThat(read);
  return tx.query(`SELECT * FROM (${rows}) AS page ORDER BY ordinal DESC, id DESC LIMIT $3`, [
    audience,
    user,
    limit + 1,
    ...(place ? [place.ordinal, place.id] : []),
  ]);
}

/** The items of a page as far as one message over NATS takes them, and at least the first. */
function fitting(items: readonly UserNotification[]): UserNotification[] {
  let bytes = 0;
  const end = items.findIndex((item, i) => {
    bytes += Buffer.byteLength(JSON.stringify(item));
    return i > 0 && bytes > PAGE_BYTES;
  });
  return end === -1 ? [...items] : items.slice(0, end);
}
