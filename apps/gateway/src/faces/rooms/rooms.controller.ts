/** `POST /api/v1/pub_subs`, also `/api/v1/publish`: servers publish into rooms (docs/protocols/livestorm.md). */
import { Body, Controller, Headers, HttpCode, Post, Req } from '@nestjs/common';
import { formatPosition, PAYLOAD_LIMIT, ProblemError, roomTopic } from '@posthorn/contracts';
import type { FastifyRequest } from 'fastify';
import { GatewayCore } from '../../core.js';
import { ApiTokens } from '../../http/api-tokens.js';
import { objectBody } from '../../http/body.js';
import { Buckets } from '../../http/buckets.js';
import { identifyCall } from '../../http/calls-in.js';
import { idempotencyKeyOf, traceparentOf } from '../../http/publish-headers.js';
import { tooFast } from '../../session/limits.js';
import { parseRoomEvent } from './room-event.js';

/** The event that was stored. */
export interface RoomEventReply {
  readonly id: string;
  /** Absent where the topic is registered as ephemeral. */
  readonly position?: string;
}

@Controller('api/v1')
export class RoomsController {
  /** By token: a bucket for each. */
  readonly #rates: Buckets;

  constructor(
    private readonly core: GatewayCore,
    private readonly tokens: ApiTokens,
  ) {
    const { publishRate, publishBurst } = core.config;
    this.#rates = new Buckets(publishRate, publishBurst);
  }

  /** 202 once it is stored: who hears it is up to the rooms. The document has both names. */
  @Post(['pub_subs', 'publish'])
  @HttpCode(202)
  async publish(
    @Headers('authorization') authorization: string | undefined,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
    @Headers('traceparent') traceparent: string | undefined,
    @Body() raw: unknown,
    @Req() request: FastifyRequest,
  ): Promise<RoomEventReply> {
    const { audience, tokenId, scopes } = await this.tokens.verify(authorization, request.ip);
    identifyCall(this.core, request, { audience }, true);
    await this.core.bus.topics.audience(audience);
    const { scope, room, eventName, data } = parseRoomEvent(objectBody(raw));
    if (!scopes.includes(`publish:${scope}`)) {
      throw new ProblemError('forbidden', `The API token does not have the scope publish:${scope}`);
    }
    const topic = roomTopic(scope, room, eventName);
    const key = idempotencyKeyOf(idempotencyKey);
    const seconds = this.#rates.take(tokenId, performance.now());
    if (seconds > 0) throw tooFast(seconds);
    const { id, position } = await this.core.publisher.publish({
      audience,
      principal: `api-token:${tokenId}`,
      source: `/api-token/${tokenId}`,
      limit: PAYLOAD_LIMIT.service,
      topic,
      scope: 'global',
      message: data,
      ...(key === undefined ? {} : { idempotencyKey: key }),
      ...traceparentOf(traceparent, true),
    });
    return { id, ...(position ? { position: formatPosition(position) } : {}) };
  }
}
