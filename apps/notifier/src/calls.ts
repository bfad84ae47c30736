import { type DynamicModule, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { MicroserviceOptions } from '@nestjs/microservices';
import { ProblemError } from '@posthorn/contracts';
import { databaseAway } from '@posthorn/database';
import { nestLogger, RpcProblemFilter, rpcServerOptions, validationPipe } from '@posthorn/service';
import { refusedByDatabase } from './failure.js';
import type { Part, Parts } from './parts.js';

@Module({})
class CallsModule {}

/** Answers the calls of all parts (`ph-rpc.notifier.*`) until the service shuts down. */
export async function answerCalls({ service, nats }: Parts, parts: readonly Part[]): Promise<void> {
  const { health, logger, shutdown, tracing } = service;
  const module: DynamicModule = {
    module: CallsModule,
    controllers: parts.flatMap(({ controllers }) => controllers),
    providers: parts.flatMap(({ providers }) => providers),
  };
  const calls = await NestFactory.createMicroservice<MicroserviceOptions>(module, {
    ...rpcServerOptions({ nats, app: 'notifier', tracing }),
    logger: nestLogger(logger),
  });
  calls.useGlobalPipes(validationPipe());
  calls.useGlobalFilters(new RpcProblemFilter({ logger, translate: problemOf }));
  await calls.listen();
  shutdown.on('stop accepting', 'calls', () => calls.close());
  await nats.connection.flush();
  health.set('calls', true);
}

/** Failures of the database that mean something to a caller. */
function problemOf(error: unknown): ProblemError | undefined {
  if (refusedByDatabase(error)) {
    return new ProblemError('request_invalid', 'The request holds what cannot be stored', { cause: error });
  }
  return databaseAway(error);
}
