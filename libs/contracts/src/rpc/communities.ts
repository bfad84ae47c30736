/** Calls of the notifier app about who manages, and who belongs to, a community (`ph-rpc.notifier.*`). */
import { ArrayMaxSize, IsArray, IsString, Length } from 'class-validator';

export const COMMUNITY_CALLS = {
  setManagers: 'ph-rpc.notifier.set-managers',
  setMembers: 'ph-rpc.notifier.set-members',
} as const;

/** Replaces who manages, or who belongs to, a community. */
export class SetCommunityRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsString()
  @Length(1, 255)
  community!: string;

  @IsArray()
  @ArrayMaxSize(10_000)
  @IsString({ each: true })
  @Length(1, 255, { each: true })
  users!: string[];
}

export interface SetCommunityReply {
  readonly community: string;
  readonly users: readonly string[];
}
