import 'reflect-metadata';
import { setTimeout as sleep } from 'node:timers/promises';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { createService, listenError, nestLogger, runMain } from '@posthorn/service';
import { readGatewayConfig, shutdownBudgets } from './config.js';
import { GatewayCore } from './core.js';
import { CourierAdapter } from './faces/courier/courier.adapter.js';
import { serveOriginalClients } from './faces/courier/drop-in/drop-in.js';
import { GatewayModule } from './gateway.module.js';
import { corsOptions } from './http/cors.js';
import { CountingProblemFilter } from './http/counting-problem-filter.js';
import { serveDocs } from './http/docs.js';
import { createAdapter } from './http/server.js';

await runMain(async () => {
  const config = readGatewayConfig(process.env);
  const service = await createService({
    ...config,
    app: 'gateway',
    budgets: shutdownBudgets(config),
  });
  const core = new GatewayCore(config, service);
  const app = await NestFactory.create<NestFastifyApplication>(
    GatewayModule.around(core),
    createAdapter(core),
    {
      logger: nestLogger(service.logger),
      bodyParser: false,
      abortOnError: false,
    },
  );
  app.useGlobalFilters(new CountingProblemFilter(service.logger, core.metrics.errors));
  if (config.courierCompat) serveOriginalClients(app, core);
  app.useWebSocketAdapter(new CourierAdapter(app, core));
  app.enableCors(corsOptions(core.origins));
  serveDocs(app);
  // HTTP first: /health/ready says what is still missing.
  await app.listen(config.port, config.host).catch((error: NodeJS.ErrnoException) => {
    throw listenError(error, config.host, config.port);
  });
  service.logger.info({ host: config.host, port: config.port }, 'gateway is listening');
  // Not ready from the first moment, and there until everybody who sends requests here knows it.
  service.shutdown.on('stop accepting', 'delay', () => sleep(config.drainDelay));
  service.shutdown.on('flush', 'http', () => app.close());
  await core.open();
  service.logger.info('gateway is ready');
});
