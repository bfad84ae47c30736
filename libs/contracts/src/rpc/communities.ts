/** Calls of the notifier app about who manages, and who belongs to, a community (`ph-rpc.notifier.*`). */
import { ArrayMaxSize, IsArray, IsOptional, IsString, Length } from 'class-validator';

export const COMMUNITY_CALLS = {
  setManagers: 'ph-rpc.notifier.set-managers',
  setMembers: 'ph-rpc.notifier.set-members',
  listMembers: 'ph-rpc.notifier.list-members',
} as const;

/** How many members a page has at most. */
export const MEMBERS_PAGE = 1_000;

class CommunityRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsString()
  @Length(1, 255)
  community!: string;
}

/** Replaces who manages, or who belongs to, a community. */
export class SetCommunityRequest extends CommunityRequest {
  @IsArray()
  @ArrayMaxSize(10_000)
  @IsString({ each: true })
  @Length(1, 255, { each: true })
  users!: string[];
}

/** Asks for the next {@link MEMBERS_PAGE} members, sorted; of a community that nobody spoke of there are none. */
export class ListMembersRequest extends CommunityRequest {
  /** The last member of the page before. */
  @IsOptional()
  @IsString()
  @Length(1, 255)
  after?: string;
}

/** Sorted; the last page is one that is not full. */
export type ListMembersReply = readonly string[];

export interface SetCommunityReply {
  readonly community: string;
  readonly users: readonly string[];
}
