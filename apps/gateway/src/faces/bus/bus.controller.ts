/** `POST /<database_name>/bus` (docs/protocols/tryton.md). */
import { Body, Controller, Headers, HttpCode, Param, Post, Req } from '@nestjs/common';
import { type Cursor, type Principal, ProblemError, parseCursor } from '@posthorn/contracts';
import type { FastifyRequest } from 'fastify';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import type { PollAnswer } from '../../hub/poll.js';
import { type Channels, channelsOf } from './channels.js';
import { callerOf } from './credentials.js';
import { WaitingPolls } from './waiting-polls.js';

/** A message, or that there was none in time. */
export interface BusAnswer {
  readonly channel: string | null;
  readonly message: Readonly<Record<string, unknown>> | null;
  /** Only where messages were lost: false. */
  readonly recovered?: false;
}

/** A cursor that is none of any stream: what an unknown `last_message` stands for. */
const UNKNOWN: Cursor = { epoch: '', sequence: 0 };

@Controller()
export class BusController {
  constructor(
    private readonly core: GatewayCore,
    private readonly polls: WaitingPolls,
  ) {}

  @Post(':database/bus')
  @HttpCode(200)
  async poll(
    @Param('database') database: string,
    @Headers('authorization') authorization: string | undefined,
    @Body() body: unknown,
    @Req() request: FastifyRequest,
  ): Promise<BusAnswer> {
    if (!this.core.config.trytonBus) throw new ProblemError('not_implemented', 'The bus is switched off');
    const principal = await callerOf(this.core, database, authorization);
    this.polls.admit(principal);
    await this.core.bus.topics.audience(principal.audience);
    const { channels, since } = requestOf(body, principal);
    const answer = await this.polls.next(principal, { filters: [...channels.keys()], since }, request.raw);
    const { pollAnswers, deliveries } = this.core.metrics;
    pollAnswers[answer.event ? 'message' : 'nothing'].inc();
    if (answer.event) deliveries.poll.inc();
    return answerOf(answer, channels);
  }
}

/** @throws ProblemError `request_invalid`, `forbidden` */
function requestOf(body: unknown, principal: Principal): { channels: Channels; since: Cursor | undefined } {
  const { channels, last_message: last = null } = objectBody(body);
  if (last !== null && typeof last !== 'string') {
    throw new ProblemError('request_invalid', 'last_message must be a text or null', {
      errors: [{ path: '/last_message', message: 'must be a text or null' }],
    });
  }
  return {
    channels: channelsOf(channels, principal),
    since: last === null ? undefined : (parseCursor(last) ?? UNKNOWN),
  };
}

function answerOf({ event, place, recovered }: PollAnswer, channels: Channels): BusAnswer {
  const lost = recovered ? {} : ({ recovered: false } as const);
  if (!event) return { channel: null, message: null, ...lost };
  const channel = channels.get(event.path) ?? event.topic.name;
  const type = typeof event.message.type === 'string' ? event.message.type : channel;
  return { channel, message: { ...event.message, type, message_id: place }, ...lost };
}
