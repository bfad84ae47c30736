/** What happened to users and communities (docs/protocols/esn.md, "Timeline"). */
import { Body, Controller, Get, Put, Query, UseGuards } from '@nestjs/common';
import {
  type CountUnreadTimelineRequest,
  type Finding,
  findId,
  isPrivileged,
  type ListTimelineRequest,
  type Principal,
  ProblemError,
  type SeeTimelineRequest,
  TIMELINE_CALLS,
  type TimelinePage,
  type TimelineSeen,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { pageCursor, pageLimit } from '../../http/query.js';

/** The longest id of a user or a community, in bytes. */
const ID_BYTES = 255;

@Controller('v1/timeline')
@UseGuards(CallerGuard)
export class TimelineController {
  constructor(private readonly core: GatewayCore) {}

  /** A page of a target's timeline, newest first. */
  @Get()
  async list(
    @Caller() principal: Principal,
    @Query('target') target: unknown,
    @Query('limit') limit: unknown,
    @Query('cursor') cursor: unknown,
  ): Promise<TimelinePage> {
    const errors: Finding[] = [];
    const id = targetOf(target, errors);
    const size = pageLimit(limit, errors);
    const after = pageCursor(cursor, errors);
    refuse('The query is not valid', errors);
    return this.core.rpc.call<ListTimelineRequest, TimelinePage>(TIMELINE_CALLS.list, {
      ...readerOf(principal),
      target: id,
      limit: size,
      ...(after === undefined ? {} : { cursor: after }),
    });
  }

  /** How many entries the caller has not seen. */
  @Get('unread')
  async countUnread(@Caller() principal: Principal, @Query('target') target: unknown): Promise<TimelineSeen> {
    const errors: Finding[] = [];
    const id = targetOf(target, errors);
    refuse('The query is not valid', errors);
    return this.core.rpc.call<CountUnreadTimelineRequest, TimelineSeen>(TIMELINE_CALLS.countUnread, {
      ...readerOf(principal),
      target: id,
      user: userOf(principal),
    });
  }

  /** Notes that the caller has seen an entry and all before it. */
  @Put('seen')
  async see(
    @Caller() principal: Principal,
    @Body() body: unknown,
  ): Promise<{ target: string } & TimelineSeen> {
    const { target, id } = objectBody(body);
    const errors: Finding[] = [];
    const of = targetOf(findId(target), errors);
    const entry = entryOf(id, errors);
    refuse('The body is not valid', errors);
    const seen = await this.core.rpc.call<SeeTimelineRequest, TimelineSeen>(TIMELINE_CALLS.see, {
      ...readerOf(principal),
      target: of,
      user: userOf(principal),
      id: entry,
    });
    return { target: of, ...seen };
  }
}

/** The audience, and whose permissions bound what may be read: nobody's for a service. */
function readerOf(principal: Principal): { audience: string; reader?: string } {
  const { audience } = principal;
  return isPrivileged(principal) ? { audience } : { audience, reader: userOf(principal) };
}

function userOf(principal: Principal): string {
  if (principal.sub === null) throw new ProblemError('forbidden', 'The token names no user');
  return principal.sub;
}

function targetOf(value: unknown, errors: Finding[]): string {
  if (typeof value === 'string' && findId(value) !== undefined && Buffer.byteLength(value) <= ID_BYTES) {
    return value;
  }
  errors.push({
    path: '/target',
    message: `must be the id of a user or a community, of ${ID_BYTES} bytes at most`,
  });
  return '';
}

function entryOf(value: unknown, errors: Finding[]): string {
  if (typeof value === 'string' && value !== '' && value.length <= 255) return value;
  errors.push({ path: '/id', message: 'must be the id of an entry' });
  return '';
}

function refuse(detail: string, errors: readonly Finding[]): void {
  if (errors.length > 0) throw new ProblemError('request_invalid', detail, { errors });
}
