/** The inbox of the calling user, and who manages and belongs to a community (docs/protocols/esn.md). */
import { Body, Controller, Get, Param, Put, Query, UseGuards } from '@nestjs/common';
import {
  assertPrivileged,
  type Finding,
  findId,
  type ListNotificationsRequest,
  NOTIFIER_CALLS,
  type NotificationPage,
  PAGE,
  type Principal,
  ProblemError,
  type SetCommunityReply,
  type SetCommunityRequest,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
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
    return this.core.rpc.call<ListNotificationsRequest, NotificationPage>(NOTIFIER_CALLS.listNotifications, {
      audience: principal.audience,
      user: userOf(principal),
      limit: size,
      ...(read === undefined ? {} : { read: read === 'true' }),
      ...(cursor === undefined ? {} : { cursor: cursor as string }),
    });
  }

  @Put('communities/:id/managers')
  async setManagers(
    @Caller() principal: Principal,
    @Param('id') community: string,
    @Body() body: unknown,
  ): Promise<{ community: string; managers: readonly string[] }> {
    const users = await this.#set(NOTIFIER_CALLS.setManagers, principal, community, body, 'managers');
    return { community, managers: users };
  }

  @Put('communities/:id/members')
  async setMembers(
    @Caller() principal: Principal,
    @Param('id') community: string,
    @Body() body: unknown,
  ): Promise<{ community: string; members: readonly string[] }> {
    const users = await this.#set(NOTIFIER_CALLS.setMembers, principal, community, body, 'members');
    return { community, members: users };
  }

  async #set(
    call: string,
    principal: Principal,
    community: string,
    body: unknown,
    field: 'managers' | 'members',
  ): Promise<readonly string[]> {
    assertPrivileged(principal, `setting ${field}`);
    const users = idsOf(objectBody(body)[field], field);
    const reply = await this.core.rpc.call<SetCommunityRequest, SetCommunityReply>(call, {
      audience: principal.audience,
      community,
      users,
    });
    return reply.users;
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

function idsOf(value: unknown, field: string): string[] {
  if (!Array.isArray(value)) {
    throw new ProblemError('request_invalid', `${field} must be a list of ids`, {
      errors: [{ path: `/${field}`, message: 'must be a list of ids' }],
    });
  }
  const errors: Finding[] = [];
  const ids = value.map((item, i) => {
    const id = findId(item);
    if (!id) errors.push({ path: `/${field}/${i}`, message: 'must be an id' });
    return id ?? '';
  });
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', `${field} must be a list of ids`, {
      errors: errors.slice(0, 20),
    });
  }
  return [...new Set(ids)];
}
