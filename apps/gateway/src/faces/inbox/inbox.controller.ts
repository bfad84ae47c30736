/** The inbox of the calling user (docs/protocols/esn.md, "Inbox"). */
import { Body, Controller, Get, Param, Put, Query, UseGuards } from '@nestjs/common';
import {
  type Finding,
  INBOX_CALLS,
  type InboxCount,
  type InboxRequest,
  type ListNotificationsRequest,
  MARKS,
  type MarkAllNotificationsRequest,
  type MarkAllReply,
  type MarkNotificationRequest,
  type MarkNotificationsRequest,
  type MarkReply,
  type NotificationPage,
  type Principal,
  ProblemError,
  type UserNotification,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { pageCursor, pageLimit } from '../../http/query.js';

@Controller('v1/notifications')
@UseGuards(CallerGuard)
export class InboxController {
  constructor(private readonly core: GatewayCore) {}

  /** A page of the caller's own notifications, newest first. */
  @Get()
  list(
    @Caller() principal: Principal,
    @Query('read') read: unknown,
    @Query('limit') limit: unknown,
    @Query('cursor') cursor: unknown,
  ): Promise<NotificationPage> {
    const errors: Finding[] = [];
    if (read !== undefined && read !== 'true' && read !== 'false') {
      errors.push({ path: '/read', message: 'must be true or false' });
    }
    const size = pageLimit(limit, errors);
    const after = pageCursor(cursor, errors);
    refuse('The query is not valid', errors);
    return this.core.rpc.call<ListNotificationsRequest, NotificationPage>(INBOX_CALLS.listNotifications, {
      ...inboxOf(principal),
      limit: size,
      ...(read === undefined ? {} : { read: read === 'true' }),
      ...(after === undefined ? {} : { cursor: after }),
    });
  }

  @Get('unread')
  countUnread(@Caller() principal: Principal): Promise<InboxCount> {
    return this.core.rpc.call<InboxRequest, InboxCount>(INBOX_CALLS.countUnread, inboxOf(principal));
  }

  /** Marks several, or all, as read or unread. */
  @Put('read')
  async markMany(@Caller() principal: Principal, @Body() raw: unknown): Promise<MarkReply> {
    const { ids, all, value } = objectBody(raw);
    const errors: Finding[] = [];
    if (typeof value !== 'boolean') errors.push({ path: '/value', message: 'must be true or false' });
    if ((ids === undefined) === (all === undefined)) {
      errors.push({ path: '', message: 'must have either ids or all' });
    } else if (all !== undefined) {
      if (all !== true) errors.push({ path: '/all', message: 'must be true' });
    } else {
      checkIds(ids, errors);
    }
    refuse('The body does not have the expected form', errors);
    const request = { ...inboxOf(principal), value: value as boolean };
    if (all) return this.#markAll(request);
    return this.core.rpc.call<MarkNotificationsRequest, MarkReply>(INBOX_CALLS.markNotifications, {
      ...request,
      ids: ids as string[],
    });
  }

  @Put(':id/read')
  markRead(
    @Caller() principal: Principal,
    @Param('id') id: string,
    @Body() body: unknown,
  ): Promise<UserNotification> {
    return this.#mark(principal, id, 'read', body);
  }

  @Put(':id/acknowledged')
  markAcknowledged(
    @Caller() principal: Principal,
    @Param('id') id: string,
    @Body() body: unknown,
  ): Promise<UserNotification> {
    return this.#mark(principal, id, 'acknowledged', body);
  }

  async #mark(
    principal: Principal,
    id: string,
    flag: MarkNotificationRequest['flag'],
    body: unknown,
  ): Promise<UserNotification> {
    const { value } = objectBody(body);
    if (typeof value !== 'boolean') {
      refuse('The body does not have the expected form', [
        { path: '/value', message: 'must be true or false' },
      ]);
    }
    return this.core.rpc.call<MarkNotificationRequest, UserNotification>(INBOX_CALLS.markNotification, {
      ...inboxOf(principal),
      id,
      flag,
      value: value as boolean,
    });
  }

  /** Step by step: what was done before a failure stays done, and told. */
  async #markAll(request: InboxRequest & { value: boolean }): Promise<MarkReply> {
    let updated = 0;
    let cursor: string | undefined;
    for (;;) {
      const { next_cursor, ...step } = await this.core.rpc.call<MarkAllNotificationsRequest, MarkAllReply>(
        INBOX_CALLS.markAllNotifications,
        { ...request, ...(cursor === undefined ? {} : { cursor }) },
        { timeoutMs: STEP_TIMEOUT },
      );
      updated += step.updated;
      if (next_cursor === null) return { ...step, updated };
      cursor = next_cursor;
    }
  }
}

/** A step of marking all writes up to 1,000 notifications. */
const STEP_TIMEOUT = 10_000;

function inboxOf({ audience, sub }: Principal): InboxRequest {
  if (sub === null) throw new ProblemError('forbidden', 'The token names no user');
  return { audience, user: sub };
}

function checkIds(ids: unknown, errors: Finding[]): void {
  if (!Array.isArray(ids) || ids.length > MARKS) {
    errors.push({ path: '/ids', message: `must be a list of at most ${MARKS} ids` });
    return;
  }
  ids.forEach((id, i) => {
    if (typeof id !== 'string') errors.push({ path: `/ids/${i}`, message: 'must be a text' });
  });
}

/** @throws ProblemError `request_invalid` where there are findings */
function refuse(detail: string, errors: readonly Finding[]): void {
  if (errors.length > 0) throw new ProblemError('request_invalid', detail, { errors: errors.slice(0, 20) });
}
