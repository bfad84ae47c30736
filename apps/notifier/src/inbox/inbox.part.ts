import type { Part, Parts } from '../parts.js';
import { InboxController } from './inbox.controller.js';
import { InboxReader } from './inbox-reader.js';

/** Inboxes: read by their owners. */
export function openInbox({ source }: Parts): Part {
  return {
    controllers: [InboxController],
    providers: [{ provide: InboxReader, useValue: new InboxReader(source) }],
  };
}
