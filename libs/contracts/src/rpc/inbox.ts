/** Calls of the notifier app about inboxes (`ph-rpc.notifier.*`). */
import { IsBoolean, IsInt, IsOptional, IsString, Length, Max, Min } from 'class-validator';
import type { UserNotification } from '../catalogue/esn.js';

export const INBOX_CALLS = {
  listNotifications: 'ph-rpc.notifier.list-notifications',
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
