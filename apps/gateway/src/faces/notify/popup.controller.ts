/** `POST /v1/notify`: pops up a text on a user's clients (docs/protocols/tryton.md, "Server SDK"). */
import { Body, Controller, Headers, HttpCode, Post, UseGuards } from '@nestjs/common';
import {
  assertMayNotify,
  formatPosition,
  isPrivileged,
  notificationChannel,
  type Principal,
  parseNotificationMessage,
  parseTopic,
} from '@posthorn/contracts';
import { authorOf } from '../../author.js';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { idempotencyKeyOf, traceparentOf } from '../../http/publish-headers.js';
import { PublishRates } from '../courier/publish-rates.js';

/** The event that was stored. */
export interface PopupReply {
  readonly id: string;
  /** Absent where the channel is registered as ephemeral. */
  readonly position?: string;
}

@Controller('v1/notify')
@UseGuards(CallerGuard)
export class PopupController {
  constructor(
    private readonly core: GatewayCore,
    private readonly rates: PublishRates,
  ) {}

  /** 202 once it is stored: who shows it, and when, is up to the clients. */
  @Post()
  @HttpCode(202)
  async notify(
    @Caller() principal: Principal,
    @Body() raw: unknown,
    @Headers('posthorn-client') callingClient: string | undefined,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
    @Headers('traceparent') traceparent: string | undefined,
  ): Promise<PopupReply> {
    const { message, ...named } = parseNotificationMessage(objectBody(raw));
    const current = { user: principal.sub ?? undefined, client: callingClient || undefined };
    // A client is one of the user's that is named with it.
    if (named.user !== undefined) assertMayNotify(principal, parseTopic(`user:${named.user}`));
    const topic = parseTopic(notificationChannel(named, current));
    assertMayNotify(principal, topic);
    const key = idempotencyKeyOf(idempotencyKey);
    this.rates.take(principal, topic);
    const { id, position } = await this.core.publisher.publish({
      ...authorOf(principal),
      topic,
      scope: 'global',
      message,
      ...(key === undefined ? {} : { idempotencyKey: key }),
      ...traceparentOf(traceparent, isPrivileged(principal)),
    });
    return { id, ...(position ? { position: formatPosition(position) } : {}) };
  }
}
