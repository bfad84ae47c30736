/** `POST /v1/audience`. */
import { Controller, Post, Res, UseGuards } from '@nestjs/common';
import {
  type AudienceRecord,
  type CreateAudienceReply,
  type CreateAudienceRequest,
  type Principal,
  REGISTRY_CALLS,
} from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { Caller, CallerGuard, NewAudience } from '../../http/caller.js';

@Controller('v1/audience')
@UseGuards(CallerGuard)
export class AudienceController {
  constructor(private readonly core: GatewayCore) {}

  /** 201 with the audience of the token, 200 with the same when it exists. */
  @Post()
  @NewAudience()
  async create(
    @Caller() principal: Principal,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<AudienceRecord> {
    const { created, audience } = await this.core.rpc.call<CreateAudienceRequest, CreateAudienceReply>(
      REGISTRY_CALLS.createAudience,
      { name: principal.audience },
    );
    this.core.bus.topics.rememberAudience(audience);
    reply.code(created ? 201 : 200);
    return audience;
  }
}
