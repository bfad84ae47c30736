/** The tables of the notifier. */
import { Community } from './communities/entities.js';
import { Inbox, Notification } from './inbox/entities.js';
import { Notifier1800000000000 } from './migrations/1800000000000-notifier.js';
import { InboxUpdates1800000200000 } from './migrations/1800000200000-inbox-updates.js';
import { DeadLetters1800000300000 } from './migrations/1800000300000-dead-letters.js';
import { Timeline1800000400000 } from './migrations/1800000400000-timeline.js';
import { Retention1800000410000 } from './migrations/1800000410000-retention.js';

/** The migrations in the order in which they run. */
export const SCHEMA = {
  entities: [Notification, Inbox, Community],
  migrations: [
    Notifier1800000000000,
    InboxUpdates1800000200000,
    DeadLetters1800000300000,
    Timeline1800000400000,
    Retention1800000410000,
  ],
};
