import 'reflect-metadata';
import { runMain, startWorker } from '@posthorn/service';
import { readRegistryConfig } from './config.js';
import { startRegistry } from './registry.js';

await runMain(async () => {
  const config = readRegistryConfig(process.env);
  await startRegistry(config, await startWorker({ ...config, app: 'registry' }));
});
