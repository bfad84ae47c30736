import { STREAMS } from '@posthorn/contracts';
import { Routine } from '@posthorn/service';
import { consumerName, handleEvents } from '../events-server.js';
import type { Parts } from '../parts.js';
import { Events } from './events.js';
import { Store } from './store.js';
import { Writer } from './writer.js';

/** How often the consumer's backlog is asked for, in ms. */
const BACKLOG_MS = 5_000;

/** Turns events into notifications until the service shuts down; resolves once it does. */
export async function startWorker(parts: Parts): Promise<void> {
  const { service, config, nats, bus, source, metrics } = parts;
  const { health, logger, shutdown } = service;
  const writer = new Writer({ store: new Store(source), bus, metrics, batchSize: config.batchSize });
  const consumer = consumerName('notifier', config.instance);
  await handleEvents(parts, {
    consumer,
    controllers: [Events],
    providers: [{ provide: Writer, useValue: writer }],
  });
  health.set('consumer', true);
  const backlog = new Routine({
    everyMs: BACKLOG_MS,
    retryMs: BACKLOG_MS,
    run: async () => {
      const { num_pending } = await bus.jsm.consumers.info(STREAMS.local.name, consumer);
      metrics.pending.set(num_pending);
    },
    report: (err) => health.set('consumer', !err, err?.message),
  });
  const unwatch = nats.watch((connected) => connected && backlog.soon());
  backlog.start();
  backlog.soon();
  shutdown.on('finish in flight', 'backlog', () => {
    unwatch();
    return backlog.stop();
  });
  logger.info({ consumer }, 'handling events');
}
