import { createHash } from 'node:crypto';
import type { ConsumerInfo, JetStreamManager } from '@nats-io/jetstream';
import { type DynamicModule, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { CustomStrategy } from '@nestjs/microservices';
import { JetStreamServer, SettlementFilter } from '@posthorn/bus/nest';
import type { DurableSubscription } from '@posthorn/bus/platform';
import { encodeToken, STREAMS } from '@posthorn/contracts';
import { nestLogger, Routine } from '@posthorn/service';
import type { ConsumerKind } from './metrics.js';
import type { Part, Parts } from './parts.js';

/** How often a consumer's backlog is asked for, in ms. */
const BACKLOG_MS = 5_000;

/** The workers that handle local events, several audiences' in one transaction. See {@link consumerName}. */
export const WORKERS = ['notifier', 'activitystreams-activity', 'activitystreams-join'] as const;

@Module({})
class EventsModule {}

export interface EventsOptions extends Part {
  /** The durable consumer on local events; see {@link consumerName}. */
  readonly consumer: string;
  /** The name of its health check. */
  readonly check: string;
  readonly kind: ConsumerKind;
}

/**
 * Gives local events of all audiences to a part's `@EventPattern` handlers, through one durable consumer that
 * the replicas of the instance share, until the service shuts down. Resolves once events flow.
 */
export async function handleEvents(parts: Parts, options: EventsOptions): Promise<void> {
  const { service, config, bus, metrics } = parts;
  metrics.know(options.consumer, options.kind);
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
function watchBacklog(
  { service, nats, bus, metrics }: Parts,
  { consumer, check, kind }: EventsOptions,
): void {
  const backlog = metrics.backlogs[kind];
  const routine = new Routine({
    everyMs: BACKLOG_MS,
    retryMs: BACKLOG_MS,
    run: async () => {
      const info = await bus.jsm.consumers.info(STREAMS.local.name, consumer);
      const pending = info.num_pending + info.num_ack_pending;
      backlog.lag.set(pending === 0 ? 0 : await oldestAge(bus.jsm, info));
      backlog.pending.set(pending);
      backlog.inWork.set(info.num_ack_pending);
    },
    report: (err) => service.health.set(check, !err, err?.message),
  });
  const unwatch = nats.watch((connected) => connected && routine.soon());
  routine.start();
  routine.soon();
  service.shutdown.on('finish in flight', `backlog of ${consumer}`, () => {
    unwatch();
    return routine.stop();
  });
}

/** How long ago the oldest event that a consumer has not handled was stored, in seconds, by this clock. */
async function oldestAge(jsm: JetStreamManager, { ack_floor, config }: ConsumerInfo): Promise<number> {
  // The client's types know no subject beside a sequence; the server takes both.
  const query: { seq: number; next_by_subj: string } = {
    seq: ack_floor.stream_seq + 1,
    next_by_subj: config.filter_subject ?? '>',
  };
  const oldest = await jsm.streams.getMessage(STREAMS.local.name, query);
  return oldest ? Math.max(0, (Date.now() - oldest.time.getTime()) / 1_000) : 0;
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
