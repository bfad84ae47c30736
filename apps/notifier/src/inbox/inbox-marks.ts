import {
  type InboxCount,
  type InboxRequest,
  MARKS,
  type MarkAllNotificationsRequest,
  type MarkAllReply,
  type MarkNotificationRequest,
  type MarkNotificationsRequest,
  type MarkReply,
  ProblemError,
  type UserNotification,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { keyOf } from '../keys.js';
import { formatPlace, isRowId, type Place, parsePlace } from '../place.js';
import { Notification, userNotification } from './entities.js';
import { InboxChanges, type InboxCounts, type RecordedUpdate } from './inbox-changes.js';
import { countsOf } from './inbox-reader.js';
import type { InboxUpdates } from './inbox-updates.js';

/** What a marking of several came to, and what is to be told of it. */
interface Marked extends MarkReply {
  readonly updates: readonly RecordedUpdate[];
}

/**
 * Marks notifications for their owners. Marking what is so already changes nothing, and nobody is told. What was
 * withdrawn stays as it is.
 *
 * A transaction locks the notifications, sorted by id, and then the inbox, as all do.
 */
export class InboxMarks {
  readonly #source: DataSource;
  readonly #updates: InboxUpdates;

  constructor(source: DataSource, updates: InboxUpdates) {
    this.#source = source;
    this.#updates = updates;
  }

  /**
   * Marks one notification; returns it as it is then.
   * @throws ProblemError `notification_not_found` where it is none of this inbox
   */
  async markOne(request: MarkNotificationRequest): Promise<UserNotification> {
    if (!isRowId(request.id)) throw notFound();
    const { notification, updates } = await withTransaction(this.#source, (tx) => markOne(tx, request));
    void this.#updates.announce(updates);
    return notification;
  }

  /** Marks those that are in the inbox as read or unread; others are passed over. */
  async markMany(request: MarkNotificationsRequest): Promise<MarkReply> {
    const { updates, ...reply } = await withTransaction(this.#source, (tx) =>
      markMany(tx, request, request.ids.filter(isRowId)),
    );
    void this.#updates.announce(updates);
    return reply;
  }

  /**
   * Marks the next {@link MARKS} that are listed, from the newest on: an inbox of any size is marked in steps,
   * each with a transaction and an event of its own. What comes meanwhile is newer, and stays as it is.
   * @throws ProblemError `request_invalid` for a cursor that is none
   */
  async markAll(request: MarkAllNotificationsRequest): Promise<MarkAllReply> {
    const place = request.cursor === undefined ? undefined : parsePlace(request.cursor);
    const { updates, ...reply } = await withTransaction(this.#source, async (tx) => {
      const next = await findNext(tx, request, place);
      const marked = await markMany(
        tx,
        request,
        next.map(({ id }) => id),
      );
      return { ...marked, next_cursor: next.length === MARKS ? formatPlace(next.at(-1)!) : null };
    });
    void this.#updates.announce(updates);
    return reply;
  }
}

async function markOne(
  tx: EntityManager,
  { audience, user, id, flag, value }: MarkNotificationRequest,
): Promise<{ notification: UserNotification; updates: readonly RecordedUpdate[] }> {
  const before = await tx.findOne(Notification, {
    where: { id, audience, target: user },
    lock: { mode: 'pessimistic_write' },
  });
  if (!before) throw notFound();
  if (before.withdrawn || before[flag] === value) {
    return { notification: userNotification(before), updates: [] };
  }
  await tx.update(Notification, { id }, { [flag]: value });
  const after = { ...before, [flag]: value };
  const notification = userNotification(after);
  const inboxes = new InboxChanges();
  inboxes.updated({
    audience,
    user,
    change: value ? flag : `un${flag}`,
    unread: Number(isUnread(after)) - Number(isUnread(before)),
    notification,
    untold: before.emittedAt ? [] : [id],
  });
  const { updates } = await inboxes.record(tx);
  return { notification, updates };
}

/** @param ids of any inbox: only those of the request's are marked */
async function markMany(
  tx: EntityManager,
  request: InboxRequest & { readonly value: boolean },
  ids: readonly string[],
): Promise<Marked> {
  const { audience, user, value } = request;
  // Found by id alone: with a plain = a planner without statistics reads the whole inbox for each step.
  const [rows]: [{ id: string; acknowledged: boolean; told: boolean }[], number] = await tx.query(
    `WITH before AS (
       SELECT n.id
       FROM notification n
       WHERE n.id = ANY ($3::uuid[]) AND n.audience IS NOT DISTINCT FROM $1 AND n.target IS NOT DISTINCT FROM $2
         AND n.read <> $4 AND NOT n.withdrawn
       ORDER BY n.id
       FOR UPDATE)
     UPDATE notification n SET read = $4 FROM before WHERE n.id = before.id
     RETURNING n.id, n.acknowledged, n.emitted_at IS NOT NULL AS told`,
    [audience, user, ids, value],
  );
  if (rows.length === 0) return { updated: 0, ...(await countsOf(tx, request)), updates: [] };
  const counted = rows.filter(({ acknowledged }) => !acknowledged).length;
  const inboxes = new InboxChanges();
  inboxes.updated({
    audience,
    user,
    change: value ? 'read' : 'unread',
    unread: value ? -counted : counted,
    ids: rows.map(({ id }) => id),
    untold: rows.filter(({ told }) => !told).map(({ id }) => id),
  });
  const { counts, updates } = await inboxes.record(tx);
  return { updated: rows.length, ...inboxCount(counts.get(keyOf(audience, user))!), updates };
}

/** The next ones that are listed and are to be marked. */
function findNext(
  tx: EntityManager,
  { audience, user, value }: MarkAllNotificationsRequest,
  place: Place | undefined,
): Promise<Place[]> {
  return tx.query(
    `SELECT n.id, n.ordinal
     FROM notification n
     WHERE n.audience = $1 AND n.target = $2 AND n.read = $3 AND NOT n.acknowledged AND NOT n.withdrawn
       ${place ? 'AND (n.ordinal, n.id) < ($5, $6)' : ''}
     ORDER BY n.ordinal DESC, n.id DESC
     LIMIT $4`,
    [audience, user, !value, MARKS, ...(place ? [place.ordinal, place.id] : [])],
  );
}

function isUnread({ read, acknowledged }: Notification): boolean {
  return !read && !acknowledged;
}

function inboxCount({ version, unreadCount }: InboxCounts): InboxCount {
  return { unread_count: unreadCount, version };
}

/** The same for every reason: nobody learns what others have. */
function notFound(): ProblemError {
  return new ProblemError('notification_not_found', 'No notification of this inbox has the id');
}
