import { consumerName, handleEvents } from '../events-server.js';
import type { Parts } from '../parts.js';
import { Expiry } from '../retention/expiry.js';
import { Events } from './events.js';
import { Store } from './store.js';
import { Writer } from './writer.js';

/** Turns events into notifications until the service shuts down; resolves once it does. */
export async function startWorker(parts: Parts): Promise<void> {
  const { service, config, bus, source, updates, metrics } = parts;
  const writer = new Writer({
    store: new Store(source),
    bus,
    updates,
    metrics,
    expiry: new Expiry(config.notificationRetention),
    batchSize: config.batchSize,
    tracer: service.tracing,
  });
  await handleEvents(parts, {
    consumer: consumerName('notifier', config.instance),
    check: 'consumer',
    kind: 'notifications',
    controllers: [Events],
    providers: [{ provide: Writer, useValue: writer }],
  });
}
