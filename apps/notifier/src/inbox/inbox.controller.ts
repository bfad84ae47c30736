import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  INBOX_CALLS,
  type InboxCount,
  InboxRequest,
  ListNotificationsRequest,
  MarkAllNotificationsRequest,
  type MarkAllReply,
  MarkNotificationRequest,
  MarkNotificationsRequest,
  type MarkReply,
  type NotificationPage,
  type UserNotification,
} from '@posthorn/contracts';
import { InboxMarks } from './inbox-marks.js';
import { InboxReader } from './inbox-reader.js';

/** The calls of the inbox. */
@Controller()
export class InboxController {
  constructor(
    private readonly inbox: InboxReader,
    private readonly marks: InboxMarks,
  ) {}

  @MessagePattern(INBOX_CALLS.listNotifications)
  listNotifications(@Payload() request: ListNotificationsRequest): Promise<NotificationPage> {
    return this.inbox.list(request);
  }

  @MessagePattern(INBOX_CALLS.countUnread)
  countUnread(@Payload() request: InboxRequest): Promise<InboxCount> {
    return this.inbox.count(request);
  }

  @MessagePattern(INBOX_CALLS.markNotification)
  markNotification(@Payload() request: MarkNotificationRequest): Promise<UserNotification> {
    return this.marks.markOne(request);
  }

  @MessagePattern(INBOX_CALLS.markNotifications)
  markNotifications(@Payload() request: MarkNotificationsRequest): Promise<MarkReply> {
    return this.marks.markMany(request);
  }

  @MessagePattern(INBOX_CALLS.markAllNotifications)
  markAllNotifications(@Payload() request: MarkAllNotificationsRequest): Promise<MarkAllReply> {
    return this.marks.markAll(request);
  }
}
