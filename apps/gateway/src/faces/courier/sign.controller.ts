/** `GET /v1/sign`, and revocation. */
import { Body, Controller, Get, Header, Post, Query, Res, UseGuards } from '@nestjs/common';
import { OmitType } from '@nestjs/swagger';
import {
  AUTH_CALLS,
  type KeyPurpose,
  type Principal,
  ProblemError,
  type RevokeReply,
  RevokeRequest,
  type SignReply,
  type SignRequest,
} from '@posthorn/contracts';
import { validationPipe } from '@posthorn/service';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard, CallerToken } from '../../http/caller.js';
import { publicUrl } from '../../http/public-url.js';

/** The body of `POST /v1/revocations`: without the audience, which is the token's. */
class RevokeBody extends OmitType(RevokeRequest, ['audience'] as const) {}

/** An empty body ends all tokens of the audience: a misspelled one must not count as empty. */
const bodyPipe = validationPipe({ forbidNonWhitelisted: true });

@Controller('v1')
@UseGuards(CallerGuard)
export class SignController {
  constructor(private readonly core: GatewayCore) {}

  /** A key for `/ws` (valid 60 s) with its URL, or with `?for=stream` one for `/v1/stream`. */
  @Get('sign')
  @Header('cache-control', 'no-store')
  async sign(
    @CallerToken() token: string,
    @Query('for') use: string | undefined,
  ): Promise<{ key: string; url: string }> {
    if (use !== undefined && use !== 'stream' && use !== 'socket') {
      throw new ProblemError('request_invalid', 'for must be stream or socket', {
        errors: [{ path: '/for', message: 'must be stream or socket' }],
      });
    }
    const purpose: KeyPurpose = use ?? 'socket';
    const { key } = await this.core.rpc.call<SignRequest, SignReply>(AUTH_CALLS.sign, { token, purpose });
    const base = publicUrl(this.core.config);
    const url =
      purpose === 'socket'
        ? `${base}/ws?token=${key}`
        : `${base.replace(/^ws/, 'http')}/v1/stream?token=${key}`;
    return { key, url };
  }

  /** Ends one token (`tokenId`), the tokens of a user (`sub`), or all of the audience, issued until a moment. */
  @Post('revocations')
  async revoke(
    @Caller() principal: Principal,
    @Body() raw: unknown,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<object> {
    if (principal.role !== 'admin') throw new ProblemError('forbidden', 'Revocation is for role admin');
    const body: RevokeBody = await bodyPipe.transform(withoutNulls(objectBody(raw)), {
      type: 'body',
      metatype: RevokeBody,
    });
    const { effective } = await this.core.rpc.call<RevokeRequest, RevokeReply>(AUTH_CALLS.revoke, {
      ...body,
      audience: principal.audience,
    });
    // Stored, but some gateways may not have heard of it yet.
    reply.code(effective ? 200 : 202);
    return body;
  }
}

function withoutNulls(body: Record<string, unknown>): Record<string, unknown> {
  const errors = ['tokenId', 'sub', 'issuedBefore']
    .filter((name) => body[name] === null)
    .map((name) => ({ path: `/${name}`, message: 'must not be null' }));
  if (errors.length === 0) return body;
  throw new ProblemError('request_invalid', 'The request does not have the expected form', { errors });
}
