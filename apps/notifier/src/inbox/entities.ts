import type { UserNotification } from '@posthorn/contracts';
import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { Content } from '../worker/notice.js';

/** A notification of one recipient. */
@Entity('notification')
export class Notification {
  @PrimaryColumn({ type: 'uuid' })
  id!: string;

  @Column({ type: 'text' })
  audience!: string;

  /** The event that it comes from: with audience and target, what makes it one of its kind. */
  @Column({ name: 'event_id', type: 'text' })
  eventId!: string;

  @Column({ type: 'text' })
  target!: string;

  @Column({ type: 'text' })
  category!: string;

  @Column({ type: 'boolean' })
  interactive!: boolean;

  @Column({ type: 'json' })
  content!: StoredContent;

  /** The community, where it is an invitation. */
  @Column({ name: 'invited_to', type: 'text', nullable: true })
  invitedTo!: string | null;

  @Column({ type: 'boolean' })
  read!: boolean;

  @Column({ type: 'boolean' })
  acknowledged!: boolean;

  @Column({ type: 'boolean' })
  withdrawn!: boolean;

  /** When the event was stored. */
  @Column({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;

  /** Nanoseconds since 1970 at which the event was stored: grows along the stream. */
  @Column({ type: 'bigint' })
  ordinal!: string;

  /** When `usernotification:created` was stored; null until then. */
  @Column({ name: 'emitted_at', type: 'timestamptz', nullable: true })
  emittedAt!: Date | null;
}

/** The part of the content that has no column of its own. */
export type StoredContent = Omit<Content, 'category' | 'interactive'>;

/** What is counted of a user's notifications; kept exact with every change of them. */
@Entity('inbox')
export class Inbox {
  @PrimaryColumn({ type: 'text' })
  audience!: string;

  @PrimaryColumn({ name: 'user_id', type: 'text' })
  userId!: string;

  /** Grows with every change. */
  @Column({ type: 'bigint', transformer: { from: Number, to: String } })
  version!: number;

  /** Of those neither read, nor acknowledged, nor withdrawn. */
  @Column({ name: 'unread_count', type: 'integer' })
  unreadCount!: number;
}

/** A stored notification, without what only storage needs. */
export type NotificationRow = Pick<
  Notification,
  'id' | 'target' | 'category' | 'interactive' | 'content' | 'createdAt'
> &
  Partial<Pick<Notification, 'read' | 'acknowledged' | 'withdrawn'>>;

/** A notification as everybody sees it. */
export function userNotification(row: NotificationRow): UserNotification {
  const { id, target, category, interactive, content, createdAt } = row;
  const { subject, verb, complement, context, description, icon, action, ...kept } = content;
  return {
    id,
    subject,
    verb,
    complement,
    context,
    description,
    icon,
    category,
    interactive,
    action,
    target,
    read: row.read ?? false,
    acknowledged: row.acknowledged ?? false,
    withdrawn: row.withdrawn ?? false,
    timestamps: { creation: createdAt.toISOString() },
    ...kept,
  };
}
