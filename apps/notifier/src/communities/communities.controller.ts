import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  COMMUNITY_CALLS,
  type ListMembersReply,
  ListMembersRequest,
  type SetCommunityReply,
  SetCommunityRequest,
} from '@posthorn/contracts';
import { Communities } from './communities.js';

/** The calls about communities. */
@Controller()
export class CommunitiesController {
  constructor(private readonly communities: Communities) {}

  @MessagePattern(COMMUNITY_CALLS.setManagers)
  setManagers(@Payload() request: SetCommunityRequest): Promise<SetCommunityReply> {
    return this.communities.setManagers(request);
  }

  @MessagePattern(COMMUNITY_CALLS.setMembers)
  setMembers(@Payload() request: SetCommunityRequest): Promise<SetCommunityReply> {
    return this.communities.setMembers(request);
  }

  @MessagePattern(COMMUNITY_CALLS.listMembers)
  listMembers(@Payload() request: ListMembersRequest): Promise<ListMembersReply> {
    return this.communities.members(request);
  }
}
