/** The inbox of the calling user (docs/protocols/esn.md, "Inbox"). */
import { Controller, Get, Query, UseGuards } from '@nestjs/common';
import {
  type Finding,
  INBOX_CALLS,
  type ListNotificationsRequest,
  type NotificationPage,
  PAGE,
  type Principal,
  ProblemError,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { Caller, CallerGuard } from '../../http/caller.js';

@Controller('v1')
@UseGuards(CallerGuard)
export class InboxController {
  constructor(private readonly core: GatewayCore) {}

  /** A page of the caller's own notifications, newest first. */
  @Get('notifications')
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
    const size = limit === undefined ? PAGE.default : wholeNumber(limit);
    if (!(size >= 1 && size <= PAGE.max)) {
      errors.push({ path: '/limit', message: `must be a whole number from 1 to ${PAGE.max}` });
    }
    if (cursor !== undefined && (typeof cursor !== 'string' || cursor === '' || cursor.length > 200)) {
      errors.push({ path: '/cursor', message: 'must be a next_cursor' });
    }
    if (errors.length > 0) throw new ProblemError('request_invalid', 'The query is not valid', { errors });
    return this.core.rpc.call<ListNotificationsRequest, NotificationPage>(INBOX_CALLS.listNotifications, {
      audience: principal.audience,
      user: userOf(principal),
      limit: size,
      ...(read === undefined ? {} : { read: read === 'true' }),
      ...(cursor === undefined ? {} : { cursor: cursor as string }),
    });
  }
}

/** A number of a query in plain digits, else NaN. */
function wholeNumber(value: unknown): number {
  return typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
}

function userOf(principal: Principal): string {
  if (principal.sub === null) throw new ProblemError('forbidden', 'The token names no user');
  return principal.sub;
}
