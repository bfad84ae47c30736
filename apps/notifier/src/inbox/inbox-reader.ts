import {
  type ListNotificationsRequest,
  type NotificationPage,
  ProblemError,
  type UserNotification,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource } from 'typeorm';
import { Inbox, Notification, userNotification } from './entities.js';

/** A page's size, in bytes; a single notification may be as large. */
const PAGE_BYTES = 1024 * 1024;

/** Where a page ended. */
interface Place {
  readonly ordinal: string;
  readonly id: string;
}

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
    const { audience, user, read, limit, cursor } = request;
    const place = cursor === undefined ? undefined : parseCursor(cursor);
    return withTransaction(
      this.#source,
      async (tx) => {
        const query = tx
          .createQueryBuilder(Notification, 'n')
          .where('n.audience = :audience AND n.target = :user', { audience, user })
          .andWhere('NOT n.acknowledged AND NOT n.withdrawn')
          .orderBy('n.ordinal', 'DESC')
          .addOrderBy('n.id', 'DESC')
          .limit(limit + 1);
        if (read !== undefined) query.andWhere('n.read = :read', { read });
        if (place) query.andWhere('(n.ordinal, n.id) < (:ordinal, :id)', place);
        const rows = await query.getMany();
        const inbox = await tx.findOneBy(Inbox, { audience, userId: user });
        const items = fitting(rows.slice(0, limit).map(userNotification));
        const last = rows.length > items.length ? rows[items.length - 1] : undefined;
        return {
          items,
          unread_count: inbox?.unreadCount ?? 0,
          version: inbox?.version ?? 0,
          next_cursor: last ? formatCursor(last) : null,
        };
      },
      { isolation: 'REPEATABLE READ' },
    );
  }
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

const PLACE = /^([1-9][0-9]{0,18}):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

function formatCursor({ ordinal, id }: Place): string {
  return Buffer.from(`${ordinal}:${id}`).toString('base64url');
}

function parseCursor(cursor: string): Place {
  const match = PLACE.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  const [, ordinal = '', id = ''] = match ?? [];
  if (!match || formatCursor({ ordinal, id }) !== cursor || BigInt(ordinal) >= 2n ** 63n) {
    throw new ProblemError('request_invalid', 'The cursor is none of this inbox', {
      errors: [{ path: '/cursor', message: 'must be the next_cursor of another page' }],
    });
  }
  return { ordinal, id };
}
