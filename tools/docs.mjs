/** npm run docs: writes the generated pages of docs/. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from './build.mjs';
import { root } from './checkout.mjs';
import { configurationPage } from './configuration-page.mjs';
import { metricsPage, registeredMetrics } from './metrics-page.mjs';
import { topicsPage } from './topics-page.mjs';

await build();
const load = (/** @type {string} */ path) => import(pathToFileURL(join(root, 'dist', path)).href);
const service = await load('libs/service/src/index.js');
const { describeConfig } = service;
const fields = {
  gateway: (await load('apps/gateway/src/config.js')).GATEWAY_FIELDS,
  auth: (await load('apps/auth/src/config.js')).AUTH_FIELDS,
  registry: (await load('apps/registry/src/config.js')).REGISTRY_FIELDS,
  notifier: (await load('apps/notifier/src/config.js')).NOTIFIER_FIELDS,
};
const apps = Object.fromEntries(Object.entries(fields).map(([app, table]) => [app, describeConfig(table)]));
writeFileSync(join(root, 'docs', 'configuration.md'), configurationPage(apps));
writeFileSync(join(root, 'docs', 'topics.md'), topicsPage(await load('libs/contracts/src/index.js')));
const metrics = registeredMetrics({
  ...service,
  ...(await load('libs/database/src/index.js')),
  ...(await load('apps/gateway/src/metrics.js')),
  ...(await load('apps/auth/src/metrics.js')),
  ...(await load('apps/registry/src/metrics.js')),
  ...(await load('apps/notifier/src/metrics.js')),
});
writeFileSync(join(root, 'docs', 'metrics.md'), metricsPage(metrics));
