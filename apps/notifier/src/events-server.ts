import { createHash } from 'node:crypto';
import { type DynamicModule, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { CustomStrategy } from '@nestjs/microservices';
import { JetStreamServer, SettlementFilter } from '@posthorn/bus/nest';
import type { DurableSubscription } from '@posthorn/bus/platform';
import { encodeToken, STREAMS } from '@posthorn/contracts';
import { type Level, nestLogger, Routine } from '@posthorn/service';
import type { Part, Parts } from './parts.js';

/** How often a consumer's backlog is asked for, in ms. */
const BACKLOG_MS = 5_000;

@Module({})
class EventsModule {}

export interface EventsOptions extends Part {
  /** The durable consumer on local events; see {@link consumerName}. */
  readonly consumer: string;
  /** The name of its health check. */
  readonly check: string;
  /** Told how many events wait in the stream for it. */
  readonly pending: Level;
}

/**
 * Gives local events of all audiences to a part's `@EventPattern` handlers, through one durable consumer that
 * the replicas of the instance share, until the service shuts down. Resolves once events flow.
 */
export async function handleEvents(parts: Parts, options: EventsOptions): Promise<void> {
  const { service, config, bus } = parts;
  const server = new JetStreamServer(bus, {
    name: options.consumer,
    scope: 'local',
    audience: null,
    maxInFlight: config.inFlight,
    ackWait: config.ackWait,
  });
  const module: DynamicModule = {
    module: EventsModule,
    controllers: [...options.controllers],
    providers: [...options.providers],
  };
  const events = await NestFactory.createMicroservice<CustomStrategy>(module, {
    strategy: server,
    logger: nestLogger(service.logger),
  });
  events.useGlobalFilters(new SettlementFilter());
  await events.listen();
  service.shutdown.on('finish in flight', options.consumer, () => events.close());
  await server.unwrap<DurableSubscription>().ready;
  service.health.set(options.check, true);
  watchBacklog(parts, options);
  service.logger.info({ consumer: options.consumer }, 'handling events');
}

/** Asks for the consumer's backlog now and then, which also tells whether it is well. */
function watchBacklog({ service, nats, bus }: Parts, { consumer, check, pending }: EventsOptions): void {
  const backlog = new Routine({
    everyMs: BACKLOG_MS,
    retryMs: BACKLOG_MS,
    run: async () => {
      const { num_pending } = await bus.jsm.consumers.info(STREAMS.local.name, consumer);
      pending.set(num_pending);
    },
    report: (err) => service.health.set(check, !err, err?.message),
  });
  const unwatch = nats.watch((connected) => connected && backlog.soon());
  backlog.start();
  backlog.soon();
  service.shutdown.on('finish in flight', `backlog of ${consumer}`, () => {
    unwatch();
    return backlog.stop();
  });
}

/**
 * The name of what a worker of an instance consumes with. NATS allows 255 characters, and few of them.
 * @param worker `notifier` for the notification worker
 */
export function consumerName(worker: string, instance: string): string {
  const token = encodeToken(instance);
  const short = token.length <= 200 ? token : createHash('sha256').update(instance).digest('hex');
  return `${worker}-${short}`;
}
