/** Who calls over HTTP: a guard that turns `Authorization` into a principal, and the decorators around it. */
import {
  type CanActivate,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
  SetMetadata,
} from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { isPrivileged, type Principal, ProblemError } from '@posthorn/contracts';
import type { FastifyRequest } from 'fastify';
import { GatewayCore } from '../core.js';
import { identifyCall } from './calls-in.js';

const NEW_AUDIENCE = 'posthorn:new-audience';

interface Called {
  principal?: Principal;
  token?: string;
}

/** For the one call that may come before the audience exists. */
export const NewAudience = () => SetMetadata(NEW_AUDIENCE, true);

/** The principal of the call. */
export const Caller = createParamDecorator(
  (_: unknown, context: ExecutionContext): Principal =>
    context.switchToHttp().getRequest<FastifyRequest & Called>().principal!,
);

/** The JWT of the call, for passing on to auth. Never for a log. */
export const CallerToken = createParamDecorator(
  (_: unknown, context: ExecutionContext): string =>
    context.switchToHttp().getRequest<FastifyRequest & Called>().token!,
);

/** Verifies the JWT, looks for a revocation, and makes sure that the audience exists. */
@Injectable()
export class CallerGuard implements CanActivate {
  constructor(
    private readonly core: GatewayCore,
    private readonly reflector: Reflector,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<FastifyRequest & Called>();
    const token = bearerOf(request.headers.authorization);
    const principal = await verified(this.core, token);
    identifyCall(this.core, request, principal, isPrivileged(principal));
    const mayBeNew = this.reflector.get<boolean>(NEW_AUDIENCE, context.getHandler());
    if (!mayBeNew) await this.core.bus.topics.audience(principal.audience);
    request.principal = principal;
    request.token = token;
    return true;
  }
}

/**
 * The principal of a JWT that is good now.
 * @throws ProblemError `unauthorized`, `token_expired`
 */
export async function verified(core: GatewayCore, token: string): Promise<Principal> {
  const principal = await core.verifier.verify(token);
  if (core.revocations.isRevoked(principal)) {
    throw new ProblemError('unauthorized', 'The token was revoked');
  }
  return principal;
}

export function bearerOf(header: string | undefined): string {
  const match = /^Bearer +([^\s]+) *$/i.exec(header ?? '');
  if (!match) throw new ProblemError('unauthorized', 'Authorization: Bearer <JWT> is required');
  return match[1]!;
}
