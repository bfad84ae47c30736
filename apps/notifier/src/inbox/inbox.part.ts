import { onceUntil, Routine } from '@posthorn/service';
import type { Part, Parts } from '../parts.js';
import { InboxController } from './inbox.controller.js';
import { InboxMarks } from './inbox-marks.js';
import { InboxReader } from './inbox-reader.js';

/** How often is looked for updates that nobody came to tell, in ms. */
const RELAY_MS = 1_000;

/** Inboxes: read and marked by their owners, who are told of each change. */
export function openInbox(parts: Parts): Part {
  const { source, updates } = parts;
  relayUpdates(parts);
  return {
    controllers: [InboxController],
    providers: [
      { provide: InboxReader, useValue: new InboxReader(source) },
      { provide: InboxMarks, useValue: new InboxMarks(source, updates) },
    ],
  };
}

/** Tells what was left untold, until the service shuts down. */
function relayUpdates({ service, nats, updates }: Parts): void {
  const { logger, shutdown } = service;
  const stuck = onceUntil(logger, {
    begins: 'inbox updates wait until they can be told',
    ends: 'inbox updates are told again',
  });
  const relay = new Routine({
    everyMs: RELAY_MS,
    retryMs: RELAY_MS,
    run: () => updates.relay(),
    report: (err) => (err ? stuck.begin({ err }) : stuck.end()),
  });
  const unwatch = nats.watch((connected) => connected && relay.soon());
  relay.start();
  shutdown.on('finish in flight', 'inbox updates', async () => {
    unwatch();
    await relay.stop();
    await updates.settled();
  });
}
