/** Calls of the notifier app about inboxes (`ph-rpc.notifier.*`). */
import {
  ArrayMaxSize,
  IsArray,
  IsBoolean,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  Length,
  Max,
  Min,
} from 'class-validator';
import type { UserNotification } from '../catalogue/esn.js';

export const INBOX_CALLS = {
  listNotifications: 'ph-rpc.notifier.list-notifications',
  countUnread: 'ph-rpc.notifier.count-unread',
  markNotification: 'ph-rpc.notifier.mark-notification',
  markNotifications: 'ph-rpc.notifier.mark-notifications',
  markAllNotifications: 'ph-rpc.notifier.mark-all-notifications',
} as const;

/** Page size of the inbox. */
export const PAGE = { default: 20, max: 100 } as const;

/** How many notifications one call, one transaction and one event mark at most. */
export const MARKS = 1_000;

/** Whose inbox; asks for its counts. */
export class InboxRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsString()
  @Length(1, 255)
  user!: string;
}

export class ListNotificationsRequest extends InboxRequest {
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

/** Marks one notification; answered with it, as it is then, or with `notification_not_found`. */
export class MarkNotificationRequest extends InboxRequest {
  @IsString()
  id!: string;

  @IsIn(['read', 'acknowledged'])
  flag!: 'read' | 'acknowledged';

  @IsBoolean()
  value!: boolean;
}

/** Marks those of the notifications as read, or unread, that are in the inbox. */
export class MarkNotificationsRequest extends InboxRequest {
  @IsArray()
  @ArrayMaxSize(MARKS)
  @IsString({ each: true })
  ids!: string[];

  @IsBoolean()
  value!: boolean;
}

/** Marks the next {@link MARKS} notifications as read, or unread, from the newest on. */
export class MarkAllNotificationsRequest extends InboxRequest {
  @IsBoolean()
  value!: boolean;

  /** `next_cursor` of the call before. */
  @IsOptional()
  @IsString()
  @Length(1, 200)
  cursor?: string;
}

/** How an inbox stands. */
export interface InboxCount {
  /** Of those neither read, nor acknowledged, nor withdrawn. */
  readonly unread_count: number;
  /** Grows by one for each `usernotification:created` and `usernotification:updated` of the inbox. */
  readonly version: number;
}

/** A page of the inbox, newest first. */
export interface NotificationPage extends InboxCount {
  readonly items: readonly UserNotification[];
  /** Null at the end. */
  readonly next_cursor: string | null;
}

/** What a marking came to. */
export interface MarkReply extends InboxCount {
  /** How many were not so before. */
  readonly updated: number;
}

export interface MarkAllReply extends MarkReply {
  /** Null at the end. */
  readonly next_cursor: string | null;
}
