import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { INBOX_CALLS, ListNotificationsRequest, type NotificationPage } from '@posthorn/contracts';
import { InboxReader } from './inbox-reader.js';

/** The calls of the inbox. */
@Controller()
export class InboxController {
  constructor(private readonly inbox: InboxReader) {}

  @MessagePattern(INBOX_CALLS.listNotifications)
  listNotifications(@Payload() request: ListNotificationsRequest): Promise<NotificationPage> {
    return this.inbox.list(request);
  }
}
