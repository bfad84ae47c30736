import { runMain, startWorker } from '@posthorn/service';
import { readNotifierConfig } from './config.js';
import { startNotifier } from './notifier.js';

await runMain(async () => {
  const config = readNotifierConfig(process.env);
  await startNotifier(await startWorker({ ...config, app: 'notifier' }), config);
});
