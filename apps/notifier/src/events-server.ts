import { createHash } from 'node:crypto';
import { type DynamicModule, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { CustomStrategy } from '@nestjs/microservices';
import { type DurableSubscription, JetStreamServer, SettlementFilter } from '@posthorn/bus';
import { encodeToken } from '@posthorn/contracts';
import { nestLogger } from '@posthorn/service';
import type { Part, Parts } from './parts.js';

@Module({})
class EventsModule {}

export interface EventsOptions extends Part {
  /** The durable consumer on local events; see {@link consumerName}. */
  readonly consumer: string;
}

/**
 * Gives local events of all audiences to a part's `@EventPattern` handlers, through one durable consumer that
 * the replicas of the instance share, until the service shuts down. Resolves once events flow.
 */
export async function handleEvents({ service, config, bus }: Parts, options: EventsOptions): Promise<void> {
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
