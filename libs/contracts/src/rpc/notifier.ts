/** Calls of the notifier app (`ph-rpc.notifier.*`): the inbox, and who manages and belongs to a community. */
import {
  ArrayMaxSize,
  IsArray,
  IsBoolean,
  IsInt,
  IsOptional,
  IsString,
  Length,
  Max,
  Min,
} from 'class-validator';
import type { UserNotification } from '../catalogue/esn.js';

export const NOTIFIER_CALLS = {
  listNotifications: 'ph-rpc.notifier.list-notifications',
  setManagers: 'ph-rpc.notifier.set-managers',
  setMembers: 'ph-rpc.notifier.set-members',
} as const;

/** Page size of the inbox. */
export const PAGE = { default: 20, max: 100 } as const;

export class ListNotificationsRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** Whose inbox. */
  @IsString()
  @Length(1, 255)
  user!: string;

  /** Only read, or only unread ones; absent: both. */
  @IsOptional()
  @IsBoolean()
  read?: boolean;

  @IsInt()
  @Min(1)
  @Max(PAGE.max)
  limit: number = PAGE.default;

  /** `next_cursor` of the page before. */
  @IsOptional()
  @IsString()
  @Length(1, 200)
  cursor?: string;
}

/** A page of the inbox, newest first. */
export interface NotificationPage {
  readonly items: readonly UserNotification[];
  readonly unread_count: number;
  /** Grows with every change of the inbox. */
  readonly version: number;
  /** Null at the end. */
  readonly next_cursor: string | null;
}

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
