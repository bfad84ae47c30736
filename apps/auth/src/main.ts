import { runMain, startWorker } from '@posthorn/service';
import { startAuth } from './auth.js';
import { readAuthConfig } from './config.js';

await runMain(async () => {
  const config = readAuthConfig(process.env);
  await startAuth(await startWorker({ ...config, app: 'auth' }), config);
});
