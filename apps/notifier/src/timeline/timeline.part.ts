import { consumerName, handleEvents } from '../events-server.js';
import type { Part, Parts } from '../parts.js';
import { Expiry } from '../retention/expiry.js';
import { ActivityEvents, JoinEvents } from './events.js';
import { TimelineStore } from './store.js';
import { TimelineController } from './timeline.controller.js';
import { Timeline } from './timeline.js';
import { TimelineWriter } from './writer.js';

/** Timelines: read by whom they belong to. */
export function openTimeline({ source }: Parts): Part {
  return {
    controllers: [TimelineController],
    providers: [{ provide: Timeline, useValue: new Timeline(source) }],
  };
}

/**
 * Puts activities on timelines until the service shuts down; resolves once it does. nats-server 2.9 knows one
 * filter for a consumer, and the one that takes both topics takes `notification:external` too: hence two.
 */
export async function startTimeline(parts: Parts): Promise<void> {
  const { config, source, metrics } = parts;
  const writer = new TimelineWriter({
    store: new TimelineStore(source),
    metrics,
    expiry: new Expiry(config.timelineRetention),
    batchSize: config.batchSize,
  });
  const providers = [{ provide: TimelineWriter, useValue: writer }];
  await Promise.all([
    handleEvents(parts, {
      consumer: consumerName('activitystreams-activity', config.instance),
      check: 'activities',
      kind: 'activities',
      controllers: [ActivityEvents],
      providers,
    }),
    handleEvents(parts, {
      consumer: consumerName('activitystreams-join', config.instance),
      check: 'joins',
      kind: 'joins',
      controllers: [JoinEvents],
      providers,
    }),
  ]);
}
