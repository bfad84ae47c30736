/** The tables of the notifier. */
import { Community } from './communities/entities.js';
import { Inbox, Notification } from './inbox/entities.js';
import { Notifier1800000000000 } from './migrations/1800000000000-notifier.js';

export const ENTITIES = [Notification, Inbox, Community];

/** In the order in which they run. */
export const MIGRATIONS = [Notifier1800000000000];
