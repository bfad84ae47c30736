import { Controller } from '@nestjs/common';
import { Ctx, EventPattern, Payload } from '@nestjs/microservices';
import { type EventPayload, JetStreamContext } from '@posthorn/bus/nest';
import type { TopicName } from '@posthorn/contracts';
import {
  external,
  invitationCancelled,
  invited,
  joined,
  left,
  requested,
  requestRefused,
  type Wanted,
} from './notice.js';
import { Writer } from './writer.js';

/** The events that concern a person. */
@Controller()
export class Events {
  constructor(private readonly writer: Writer) {}

  @EventPattern<TopicName>('community:join')
  joined(@Payload() payload: EventPayload<'community:join'>, @Ctx() context: JetStreamContext) {
    return this.#write(context, joined(payload));
  }

  @EventPattern<TopicName>('community:leave')
  left(@Payload() payload: EventPayload<'community:leave'>, @Ctx() context: JetStreamContext) {
    return this.#write(context, left(payload));
  }

  @EventPattern<TopicName>('community:membership:invite')
  invited(@Payload() payload: EventPayload<'community:membership:invite'>, @Ctx() context: JetStreamContext) {
    return this.#write(context, invited(payload));
  }

  @EventPattern<TopicName>('community:membership:request')
  requested(
    @Payload() payload: EventPayload<'community:membership:request'>,
    @Ctx() context: JetStreamContext,
  ) {
    return this.#write(context, requested(payload));
  }

  @EventPattern<TopicName>('community:membership:invitation:cancel')
  invitationCancelled(
    @Payload() payload: EventPayload<'community:membership:invitation:cancel'>,
    @Ctx() context: JetStreamContext,
  ) {
    return this.#write(context, invitationCancelled(payload));
  }

  @EventPattern<TopicName>('community:membership:request:refuse')
  requestRefused(
    @Payload() payload: EventPayload<'community:membership:request:refuse'>,
    @Ctx() context: JetStreamContext,
  ) {
    return this.#write(context, requestRefused(payload));
  }

  @EventPattern<TopicName>('notification:external')
  external(@Payload() payload: EventPayload<'notification:external'>, @Ctx() context: JetStreamContext) {
    return this.#write(context, external(payload));
  }

  #write({ event, delivery }: JetStreamContext, wanted: Wanted): Promise<void> {
    return this.writer.write(event, delivery, wanted);
  }
}
