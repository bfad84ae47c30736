import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import * as contracts from '@posthorn/contracts';
import { DatabaseMetrics } from '@posthorn/database';
import { describeConfig, Health, Metrics, NatsMetrics } from '@posthorn/service';
import { AUTH_FIELDS } from '../apps/auth/src/config.js';
import { AuthMetrics } from '../apps/auth/src/metrics.js';
import { GATEWAY_FIELDS } from '../apps/gateway/src/config.js';
import { GatewayMetrics } from '../apps/gateway/src/metrics.js';
import { NOTIFIER_FIELDS } from '../apps/notifier/src/config.js';
import { NotifierMetrics } from '../apps/notifier/src/metrics.js';
import { REGISTRY_FIELDS } from '../apps/registry/src/config.js';
import { RegistryMetrics } from '../apps/registry/src/metrics.js';
import { configurationPage } from '../tools/configuration-page.mjs';
import { metricsPage, registeredMetrics } from '../tools/metrics-page.mjs';
import { topicsPage } from '../tools/topics-page.mjs';

describe('docs/configuration.md', () => {
  it('is what `npm run docs` writes from the apps as they are', () => {
    const page = configurationPage({
      gateway: describeConfig(GATEWAY_FIELDS),
      auth: describeConfig(AUTH_FIELDS),
      registry: describeConfig(REGISTRY_FIELDS),
      notifier: describeConfig(NOTIFIER_FIELDS),
    });
    expect(readFileSync('docs/configuration.md', 'utf8')).toBe(page);
  });
});

describe('docs/metrics.md', () => {
  it('is what `npm run docs` writes from the metrics of the apps as they are', () => {
    const metrics = registeredMetrics({
      Metrics,
      Health,
      NatsMetrics,
      DatabaseMetrics,
      GatewayMetrics,
      AuthMetrics,
      RegistryMetrics,
      NotifierMetrics,
    });
    expect(readFileSync('docs/metrics.md', 'utf8')).toBe(metricsPage(metrics));
  });
});

describe('docs/topics.md', () => {
  const page = readFileSync('docs/topics.md', 'utf8');

  it('is what `npm run docs` writes from the catalogue as it is', () => {
    expect(page).toBe(topicsPage(contracts));
  });

  it('leads to a heading with each of its links', () => {
    const anchors = [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
    const links = [...page.matchAll(/\]\(#([^)]*)\)/g)].map(([, anchor]) => anchor);
    expect(links.length).toBeGreaterThan(contracts.CATALOGUE.size);
    expect(anchors).toEqual(expect.arrayContaining(links));
    expect(new Set(anchors).size).toBe(anchors.length);
  });
});
