import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  CountUnreadTimelineRequest,
  ListTimelineRequest,
  SeeTimelineRequest,
  TIMELINE_CALLS,
  type TimelinePage,
  type TimelineSeen,
} from '@posthorn/contracts';
import { Timeline } from './timeline.js';

/** The calls about timelines. */
@Controller()
export class TimelineController {
  constructor(private readonly timeline: Timeline) {}

  @MessagePattern(TIMELINE_CALLS.list)
  list(@Payload() request: ListTimelineRequest): Promise<TimelinePage> {
    return this.timeline.list(request);
  }

  @MessagePattern(TIMELINE_CALLS.see)
  see(@Payload() request: SeeTimelineRequest): Promise<TimelineSeen> {
    return this.timeline.see(request);
  }

  @MessagePattern(TIMELINE_CALLS.countUnread)
  countUnread(@Payload() request: CountUnreadTimelineRequest): Promise<TimelineSeen> {
    return this.timeline.countUnread(request);
  }
}
