/** Dead letters of the caller's audience, for role admin (docs/protocols/esn.md, "Dead letters"). */
import { Body, Controller, Delete, Get, HttpCode, Param, Post, Query, UseGuards } from '@nestjs/common';
import {
  DEAD_LETTER_CALLS,
  type DeadLetterPage,
  type DeadLetterRequest,
  type DeadLetterView,
  type Finding,
  type ListDeadLettersRequest,
  type Principal,
  ProblemError,
  type RedriveReply,
  type RedriveRequest,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { pageCursor, pageLimit } from '../../http/query.js';

/** How long marking all letters may take, in milliseconds: there may be a hundred thousand. */
const REDRIVE_ALL = 30_000;

@Controller('v1/dead-letters')
@UseGuards(CallerGuard)
export class DeadLettersController {
  constructor(private readonly core: GatewayCore) {}

  @Get()
  list(
    @Caller() principal: Principal,
    @Query('cursor') after: unknown,
    @Query('limit') size: unknown,
    @Query('consumer') consumer: unknown,
    @Query('code') code: unknown,
  ): Promise<DeadLetterPage> {
    const audience = audienceOf(principal);
    const errors: Finding[] = [];
    const limit = pageLimit(size, errors);
    const cursor = pageCursor(after, errors);
    const which = selection({ consumer, code }, errors);
    refuse('The query is not valid', errors);
    return this.core.rpc.call<ListDeadLettersRequest, DeadLetterPage>(DEAD_LETTER_CALLS.list, {
      audience,
      limit,
      ...which,
      ...(cursor === undefined ? {} : { cursor }),
    });
  }

  @Get(':id')
  show(@Caller() principal: Principal, @Param('id') id: string): Promise<DeadLetterView> {
    return this.#one<DeadLetterView>(DEAD_LETTER_CALLS.show, principal, id);
  }

  @Post(':id/redrive')
  @HttpCode(202)
  redrive(@Caller() principal: Principal, @Param('id') id: string): Promise<RedriveReply> {
    return this.#one<RedriveReply>(DEAD_LETTER_CALLS.redrive, principal, id);
  }

  @Post('redrive')
  @HttpCode(202)
  redriveAll(@Caller() principal: Principal, @Body() body: unknown): Promise<RedriveReply> {
    const audience = audienceOf(principal);
    const { all, consumer, code } = objectBody(body);
    const errors: Finding[] = [];
    if (all !== true) errors.push({ path: '/all', message: 'must be true' });
    const which = selection({ consumer, code }, errors);
    refuse('The body is not valid', errors);
    return this.core.rpc.call<RedriveRequest, RedriveReply>(
      DEAD_LETTER_CALLS.redriveAll,
      { audience, ...which },
      { timeoutMs: REDRIVE_ALL },
    );
  }

  @Delete(':id')
  @HttpCode(204)
  async delete(@Caller() principal: Principal, @Param('id') id: string): Promise<void> {
    await this.#one<null>(DEAD_LETTER_CALLS.delete, principal, id);
  }

  #one<Reply>(call: string, principal: Principal, id: string): Promise<Reply> {
    return this.core.rpc.call<DeadLetterRequest, Reply>(call, { audience: audienceOf(principal), id });
  }
}

function audienceOf({ role, audience }: Principal): string {
  if (role !== 'admin') throw new ProblemError('forbidden', 'Dead letters are for role admin');
  return audience;
}

/** Which letters: of a consumer, with a code. */
function selection(
  given: Readonly<Record<'consumer' | 'code', unknown>>,
  errors: Finding[],
): Pick<RedriveRequest, 'consumer' | 'code'> {
  const limits = { consumer: 255, code: 100 };
  const texts: { consumer?: string; code?: string } = {};
  for (const name of ['consumer', 'code'] as const) {
    const value = given[name];
    if (value === undefined) continue;
    if (typeof value === 'string' && value !== '' && value.length <= limits[name]) texts[name] = value;
    else errors.push({ path: `/${name}`, message: `must be a text of 1 to ${limits[name]} characters` });
  }
  return texts;
}

function refuse(detail: string, errors: readonly Finding[]): void {
  if (errors.length > 0) throw new ProblemError('request_invalid', detail, { errors });
}
