import type { JetStreamManager } from '@nats-io/jetstream';
import { STREAMS } from '@posthorn/contracts';
import { onceUntil, Routine } from '@posthorn/service';
import type { Parts } from '../parts.js';
import { Expiry } from './expiry.js';
import { Retention } from './retention.js';

/** How often is looked for what has grown old, and after a failure, in ms. */
const EVERY_MS = 3_600_000;
const RETRY_MS = 60_000;

/** Removes what has grown old, now and each hour, until the service shuts down. */
export function startRetention({ service, config, bus, source, updates, metrics }: Parts): void {
  const { logger, shutdown } = service;
  const retention = new Retention({
    source,
    updates,
    metrics,
    notifications: new Expiry(config.notificationRetention),
    timelines: new Expiry(config.timelineRetention),
    deliverableSince: () => deliverableSince(bus.jsm),
  });
  const stuck = onceUntil(logger, {
    begins: 'what has grown old cannot be removed',
    ends: 'what has grown old is removed again',
  });
  const ending = new AbortController();
  const routine = new Routine({
    everyMs: EVERY_MS,
    retryMs: RETRY_MS,
    run: () => retention.run(ending.signal),
    report: (err) => (err ? stuck.begin({ err }) : stuck.end()),
  });
  routine.start();
  routine.soon();
  shutdown.on('finish in flight', 'retention', () => {
    ending.abort();
    return routine.stop();
  });
}

/** Before which no event can come from the stream any more, in nanoseconds since 1970; 0 where it keeps all. */
async function deliverableSince(jsm: JetStreamManager): Promise<bigint> {
  const { config } = await jsm.streams.info(STREAMS.local.name);
  return config.max_age === 0 ? 0n : BigInt(Date.now()) * 1_000_000n - BigInt(config.max_age);
}
