/** The user's notifications (docs/protocols/esn.md, "Inbox"), on what a client gives them. */
import type { Posthorn } from './posthorn.js';

/** What the inbox needs of the client. */
export type InboxClient = Pick<Posthorn, 'request' | 'subscribe' | 'on' | 'state' | 'welcome'>;
