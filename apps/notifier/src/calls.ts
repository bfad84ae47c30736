import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  ListNotificationsRequest,
  NOTIFIER_CALLS,
  type NotificationPage,
  type SetCommunityReply,
  SetCommunityRequest,
} from '@posthorn/contracts';
import { Communities } from './communities.js';
import { InboxReader } from './inbox.js';

/** The notifier's calls (`ph-rpc.notifier.*`). */
@Controller()
export class Calls {
  constructor(
    private readonly inbox: InboxReader,
    private readonly communities: Communities,
  ) {}

  @MessagePattern(NOTIFIER_CALLS.listNotifications)
  listNotifications(@Payload() request: ListNotificationsRequest): Promise<NotificationPage> {
    return this.inbox.list(request);
  }

  @MessagePattern(NOTIFIER_CALLS.setManagers)
  setManagers(@Payload() request: SetCommunityRequest): Promise<SetCommunityReply> {
    return this.communities.setManagers(request);
  }

  @MessagePattern(NOTIFIER_CALLS.setMembers)
  setMembers(@Payload() request: SetCommunityRequest): Promise<SetCommunityReply> {
    return this.communities.setMembers(request);
  }
}
