/** The events that stand on timelines. Each topic has a consumer, so that its filter is exact. */
import { Controller } from '@nestjs/common';
import { Ctx, EventPattern, Payload } from '@nestjs/microservices';
import { type EventPayload, JetStreamContext } from '@posthorn/bus/nest';
import type { TopicName } from '@posthorn/contracts';
import { joinActivity, messageActivity } from './activity.js';
import { TimelineWriter } from './writer.js';

@Controller()
export class ActivityEvents {
  constructor(private readonly writer: TimelineWriter) {}

  @EventPattern<TopicName>('message:activity')
  activity(
    @Payload() payload: EventPayload<'message:activity'>,
    @Ctx() { event, delivery }: JetStreamContext,
  ): Promise<void> {
    return this.writer.write(event, delivery, messageActivity(payload, delivery.storedAt));
  }
}

@Controller()
export class JoinEvents {
  constructor(private readonly writer: TimelineWriter) {}

  @EventPattern<TopicName>('community:join')
  joined(
    @Payload() payload: EventPayload<'community:join'>,
    @Ctx() { event, delivery }: JetStreamContext,
  ): Promise<void> {
    return this.writer.write(event, delivery, joinActivity(payload, delivery.storedAt));
  }
}
