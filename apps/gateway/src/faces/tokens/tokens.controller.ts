/** API tokens of the caller's audience, for role admin (docs/protocols/livestorm.md, "API tokens"). */
import { Body, Controller, Delete, Get, Header, Param, Post, Query, Res, UseGuards } from '@nestjs/common';
import { OmitType } from '@nestjs/swagger';
import {
  type ApiTokenItem,
  type ApiTokenPage,
  type Finding,
  IssueTokenRequest,
  type ListTokensRequest,
  type Principal,
  ProblemError,
  type RevokeTokenReply,
  type RevokeTokenRequest,
  TOKEN_CALLS,
} from '@posthorn/contracts';
import { validationPipe } from '@posthorn/service';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { newSecret, writtenToken } from '../../http/api-tokens.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { pageCursor, pageLimit } from '../../http/query.js';

/** The body of `POST /v1/tokens`: what the caller may choose. */
class IssueBody extends OmitType(IssueTokenRequest, ['audience', 'hash', 'created_by'] as const) {}

/** A misspelled `expires_at` must not make a token without end. */
const bodyPipe = validationPipe({ forbidNonWhitelisted: true });

@Controller('v1/tokens')
@UseGuards(CallerGuard)
export class TokensController {
  constructor(private readonly core: GatewayCore) {}

  @Post()
  @Header('cache-control', 'no-store')
  async issue(
    @Caller() principal: Principal,
    @Body() raw: unknown,
  ): Promise<ApiTokenItem & { readonly token: string }> {
    const audience = audienceOf(principal);
    const body: IssueBody = await bodyPipe.transform(objectBody(raw), { type: 'body', metatype: IssueBody });
    const { secret, hash } = newSecret();
    const issued = await this.core.rpc.call<IssueTokenRequest, ApiTokenItem>(TOKEN_CALLS.issue, {
      ...body,
      audience,
      hash,
      ...(principal.sub !== null && { created_by: principal.sub }),
    });
    return { ...issued, token: writtenToken(issued.id, secret) };
  }

  @Get()
  list(
    @Caller() principal: Principal,
    @Query('cursor') after: unknown,
    @Query('limit') size: unknown,
  ): Promise<ApiTokenPage> {
    const audience = audienceOf(principal);
    const errors: Finding[] = [];
    const limit = pageLimit(size, errors);
    const cursor = pageCursor(after, errors);
    if (errors.length > 0) throw new ProblemError('request_invalid', 'The query is not valid', { errors });
    return this.core.rpc.call<ListTokensRequest, ApiTokenPage>(TOKEN_CALLS.list, {
      audience,
      limit,
      ...(cursor === undefined ? {} : { cursor }),
    });
  }

  @Delete(':id')
  async revoke(
    @Caller() principal: Principal,
    @Param('id') id: string,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    const request = { audience: audienceOf(principal), id };
    const { effective } = await this.core.rpc.call<RevokeTokenRequest, RevokeTokenReply>(
      TOKEN_CALLS.revoke,
      request,
    );
    // Stored, but some gateways may not have heard of it yet.
    reply.code(effective ? 204 : 202);
  }
}

function audienceOf({ role, audience }: Principal): string {
  if (role !== 'admin') throw new ProblemError('forbidden', 'API tokens are for role admin');
  return audience;
}
