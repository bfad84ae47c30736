import type { Draft } from '@posthorn/bus/platform';
import { type InboxUpdate, ownTopic, type UserNotification } from '@posthorn/contracts';

/** How the notifier signs what it publishes. */
const SOURCE = 'posthorn/notifier';

/** What a user is told of its inbox. */
export interface Telling {
  readonly topic: 'usernotification:created' | 'usernotification:updated';
  /** The event's id: told again, it is the same event. */
  readonly id: string;
  readonly audience: string;
  readonly message: UserNotification | InboxUpdate;
  readonly traceparent?: string | null | undefined;
}

/** The event that tells it, to its target alone. */
export function draftOf({ topic, id, audience, message, traceparent }: Telling): Draft {
  return {
    audience,
    topic: ownTopic(topic, message.target),
    scope: 'global',
    message,
    principal: SOURCE,
    source: SOURCE,
    id,
    idempotencyKey: id,
    ...(traceparent ? { traceparent } : {}),
  };
}
