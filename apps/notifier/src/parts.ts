/** What the parts of the notifier (worker, inbox, communities, …) are made from, and what they give. */
import type { Provider, Type } from '@nestjs/common';
import type { JetStreamBus } from '@posthorn/bus/platform';
import type { NatsLink, Service } from '@posthorn/service';
import type { DataSource } from 'typeorm';
import type { NotifierConfig } from './config.js';
import type { InboxUpdates } from './inbox/inbox-updates.js';
import type { NotifierMetrics } from './metrics.js';

/** What every part may use, ready for it. */
export interface Parts {
  readonly service: Service;
  readonly config: NotifierConfig;
  readonly nats: NatsLink;
  readonly bus: JetStreamBus;
  readonly source: DataSource;
  /** Tells users how their inboxes changed. */
  readonly updates: InboxUpdates;
  readonly metrics: NotifierMetrics;
}

/** A part's controllers for calls between apps (`ph-rpc.notifier.*`), and what Nest makes them from. */
export interface Part {
  readonly controllers: readonly Type[];
  readonly providers: readonly Provider[];
}
