/** Calls of the notifier app about timelines (`ph-rpc.notifier.*`). */
import { IsInt, IsOptional, IsString, Length, Max, Min } from 'class-validator';
import { PAGE } from './inbox.js';

export const TIMELINE_CALLS = {
  list: 'ph-rpc.notifier.list-timeline',
  see: 'ph-rpc.notifier.see-timeline',
  countUnread: 'ph-rpc.notifier.count-unread-timeline',
} as const;

/** Where counting what a user has not seen of a timeline ends: this number stands for itself or more. */
export const UNREAD_LIMIT = 1_000;

class TimelineRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** Whose timeline: a user's or a community's id. */
  @IsString()
  @Length(1, 255)
  target!: string;

  /** The user who may read its own timeline and those of its communities; absent: any may be read. */
  @IsOptional()
  @IsString()
  @Length(1, 255)
  reader?: string;
}

export class ListTimelineRequest extends TimelineRequest {
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

export class CountUnreadTimelineRequest extends TimelineRequest {
  /** Who has seen, or not seen, its entries. */
  @IsString()
  @Length(1, 255)
  user!: string;
}

export class SeeTimelineRequest extends CountUnreadTimelineRequest {
  /** The entry that was seen, with all before it. */
  @IsString()
  @Length(1, 255)
  id!: string;
}

/**
 * An activity as docs/protocols/esn.md describes it, in whichever form it was published. Whatever else the
 * publisher gave stands beside these members.
 */
export interface TimelineItem {
  readonly id: string;
  readonly verb: string;
  /** ISO 8601. */
  readonly published: string;
  readonly actor: unknown;
  readonly object: unknown;
  readonly target: readonly unknown[];
  readonly [member: string]: unknown;
}

/** A page of a timeline, newest first. */
export interface TimelinePage {
  readonly items: readonly TimelineItem[];
  /** Null at the end. */
  readonly next_cursor: string | null;
}

/** What a user has seen of a timeline. */
export interface TimelineSeen {
  /** The id of the last entry seen; null where none was. */
  readonly last_seen: string | null;
  /** Entries after it, at most {@link UNREAD_LIMIT}, which stands for that many or more. */
  readonly unread_count: number;
}
