/** Metrics, the dashboard and the alerts: that they ask for what a running cluster shows, and that it moves. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { DatabaseMetrics } from '@posthorn/database';
import { Health, type MetricRow, Metrics, NatsMetrics } from '@posthorn/service';
import { type AppName, startCluster, type TestCluster } from '@posthorn/testing';
import { parse } from 'yaml';
import { AuthMetrics } from '../apps/auth/src/metrics.js';
import { GatewayMetrics } from '../apps/gateway/src/metrics.js';
import { NotifierMetrics } from '../apps/notifier/src/metrics.js';
import { RegistryMetrics } from '../apps/registry/src/metrics.js';
import { registeredMetrics } from '../tools/metrics-page.mjs';
import { readPromql } from './support/promql.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

const registered = registeredMetrics({
  Metrics,
  Health,
  NatsMetrics,
  DatabaseMetrics,
  GatewayMetrics,
  AuthMetrics,
  RegistryMetrics,
  NotifierMetrics,
});

/** Names of series, each with the labels that it has; `namespace` and `pod` come from who scrapes. */
const series = new Map<string, Set<string>>();
for (const { name, type, labels } of Object.values(registered).flat() as MetricRow[]) {
  const names = type === 'histogram' ? ['_bucket', '_sum', '_count'].map((end) => name + end) : [name];
  for (const one of names) {
    const le = one.endsWith('_bucket') ? ['le'] : [];
    series.set(one, new Set([...Object.keys(labels), ...le, 'app', 'namespace', 'pod']));
  }
}

/** What an expression asks for that nobody shows. */
function unknownIn(expression: string): string[] {
  const { selectors, grouped } = readPromql(expression);
  expect(selectors).not.toEqual([]);
  const shown = new Set(selectors.flatMap(({ metric }) => [...(series.get(metric) ?? [])]));
  return [
    ...selectors.flatMap(({ metric, labels }) => {
      const known = series.get(metric);
      if (!known) return [metric];
      return labels.filter((label) => !known.has(label)).map((label) => `${metric}{${label}}`);
    }),
    ...grouped.filter((label) => !shown.has(label)),
  ];
}

// biome-ignore lint/suspicious/noExplicitAny: files of other programs
type Loose = any;

const alerts: Loose[] = parse(readFileSync('k8s/monitoring/alerts.yaml', 'utf8')).groups.flatMap(
  ({ rules }: Loose) => rules,
);
const dashboard: Loose = JSON.parse(readFileSync('k8s/monitoring/dashboard.json', 'utf8'));
const panels: Loose[] = dashboard.panels;
const graphs = panels.filter(({ type }) => type !== 'row');

describe('the check of expressions', () => {
  it.each(['sum(posthorn_connections', 'rate(posthorn_connections[5m]) >'])(
    'refuses %s, which is no PromQL',
    (expression) => {
      expect(() => readPromql(expression)).toThrow(SyntaxError);
    },
  );

  it('finds metrics and labels that nobody shows', () => {
    expect(unknownIn('sum by (user) (rate(posthorn_conections{app="a"}[5m]))')).toEqual([
      'posthorn_conections',
      'user',
    ]);
    expect(unknownIn('posthorn_closes_total{audience="acme"} or posthorn_feeds')).toEqual([
      'posthorn_closes_total{audience}',
    ]);
  });
});

describe('the alerts', () => {
  it.each(alerts.map(({ alert, expr }) => [alert, expr]))('%s asks for what there is', (_, expr) => {
    expect(unknownIn(expr)).toEqual([]);
  });

  it('say how bad it is, what is wrong, and where to read on', () => {
    for (const { alert, labels, annotations } of alerts) {
      expect(alert).toMatch(/^Posthorn\w+$/);
      expect(['critical', 'warning']).toContain(labels.severity);
      expect(annotations).toEqual({
        summary: expect.stringMatching(/\S/),
        description: expect.stringMatching(/\.$/),
        runbook_url: `docs/runbook.md#${alert.toLowerCase()}`,
      });
    }
  });

  it('have an entry of the runbook each, each entry its alert, and queries that ask for what there is', () => {
    const [, ...entries] = readFileSync('docs/runbook.md', 'utf8').split(/^## /m);
    expect(entries.map((entry) => entry.split('\n', 1)[0])).toEqual(alerts.map(({ alert }) => alert));
    for (const entry of entries) {
      expect(entry).toMatch(/\*\*Means\*\*.*\*\*Users\*\*.*\n- Look.*\n- Do.*\n- Over/s);
      for (const [, expression = ''] of entry.matchAll(/`([^`]*posthorn_[^`]*)`/g)) {
        expect(unknownIn(expression)).toEqual([]);
      }
    }
  });

  it('are tried by tests for promtool, all of them', () => {
    const { tests } = parse(readFileSync('k8s/monitoring/alerts.test.yaml', 'utf8'));
    const raised = JSON.stringify(tests).match(/Posthorn\w+/g);
    expect(new Set(raised)).toEqual(new Set(alerts.map(({ alert }) => alert)));
  });
});

describe('the dashboard', () => {
  it('asks for what there is', () => {
    const expressions = graphs.flatMap(({ targets }) => targets.map(({ expr }: Loose) => expr));
    expect(expressions.length).toBeGreaterThan(40);
    for (const expression of expressions) {
      expect(unknownIn(expression.replaceAll('$__rate_interval', '5m'))).toEqual([]);
    }
    for (const { type, query } of dashboard.templating.list) {
      if (type !== 'query') continue;
      const [, selector, label] = /^label_values\((.+), (\w+)\)$/.exec(query.query) ?? [];
      expect(unknownIn(`sum by (${label}) (${selector})`)).toEqual([]);
    }
  });

  it('can be read: each panel with title, words, unit and legend, none above another', () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Set<string>();
    for (const { title, gridPos, ...panel } of panels) {
      expect(title).toMatch(/\S/);
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken).not.toContain(`${x} ${y}`);
          taken.add(`${x} ${y}`);
        }
      }
      if (panel.type === 'row') continue;
      expect(panel.description).toMatch(/\S/);
      expect(panel.fieldConfig.defaults.unit).toMatch(/\S/);
      expect(panel.datasource.uid).toBe(`$${'{datasource}'}`);
      expect(panel.options.legend.showLegend).toBe(true);
      for (const { legendFormat } of panel.targets) expect(legendFormat).toMatch(/\S/);
    }
  });
});

describe('a running cluster', () => {
  let cluster: TestCluster;
  let acme: Tenant;

  beforeAll(async () => {
    cluster = await startCluster();
    acme = await createTenant(cluster, 'acme');
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  const scrape = async (app: AppName) => (await fetch(`${cluster.app(app).url}/metrics`)).text();

  /** The sum of the samples of a series that have these labels. */
  async function value(app: AppName, name: string, labels: Record<string, string> = {}): Promise<number> {
    const wanted = Object.entries(labels).map(([label, one]) => `${label}="${one}"`);
    const lines = (await scrape(app)).split('\n').filter((line) => line.startsWith(`posthorn_${name}{`));
    expect(lines).not.toEqual([]);
    const taken = lines.filter((line) => wanted.every((label) => line.includes(label)));
    return taken.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  const reaches = (wanted: number, ...what: Parameters<typeof value>) =>
    eventually(async () => ((await value(...what)) === wanted ? true : undefined));

  it.each(['gateway', 'auth', 'registry', 'notifier'] as const)(
    'shows what %s registers, and no more',
    async (app) => {
      const shown = (await scrape(app)).match(/(?<=^# TYPE )\S+/gm);
      expect(new Set(shown)).toEqual(new Set(registered[app].map(({ name }) => name)));
      await reaches(1, app, 'ready');
      await reaches(1, app, 'nats_connected');
    },
  );

  it('counts what is published, delivered and refused', async () => {
    await using ann = await acme.socket('ann');
    await using bob = await acme.socket('bob');
    const before = await value('gateway', 'deliveries_total', { through: 'session' });
    const published = await value('gateway', 'published_total');
    for (const socket of [ann, bob]) await socket.subscribe('news');
    for (let n = 1; n <= 3; n++) ann.send({ action: 'publish', topic: 'news', message: { n }, ref: `${n}` });
    for (const socket of [ann, bob]) await socket.count('message', 3);
    await ann.count('published', 3);
    await reaches(2, 'gateway', 'connections');
    await reaches(2, 'gateway', 'subscriptions');
    expect(await value('gateway', 'published_total')).toBe(published + 3);
    expect(await value('gateway', 'deliveries_total', { through: 'session' })).toBe(before + 6);
    expect(await value('gateway', 'publish_ack_seconds_count')).toBeGreaterThanOrEqual(3);
    const ages = await eventually(
      async () => (await value('gateway', 'event_age_seconds_count')) || undefined,
    );
    expect(ages).toBeLessThanOrEqual(3);
    expect(await value('gateway', 'sent_bytes_total')).toBeGreaterThan(6 * '{"n":1}'.length);
    expect(await value('gateway', 'received_bytes_total')).toBeGreaterThan(3 * '{"n":1}'.length);
    expect(
      await value('gateway', 'credential_checks_total', { credential: 'socket_key', outcome: 'good' }),
    ).toBe(2);
    ann.send({ action: 'unsubscribe', topic: 'news' });
    await reaches(1, 'gateway', 'subscriptions');
    await bob[Symbol.asyncDispose]();
    await reaches(0, 'gateway', 'subscriptions');

    const refused = await value('gateway', 'problems_total', { code: 'unauthorized' });
    const { status } = await (await acme.as('eve', { exp: 'never' }))('GET', '/v1/notifications');
    expect(status).toBe(401);
    expect(await value('gateway', 'problems_total', { code: 'unauthorized' })).toBe(refused + 1);
    expect(await value('gateway', 'credential_checks_total', { credential: 'jwt', outcome: 'refused' })).toBe(
      1,
    );
  });

  it('counts notifications, and events that are given up', async () => {
    const pubsub = acme.pubsub();
    await pubsub.local
      .topic('community:membership:invite')
      .publish({ author: 'max', target: 'ann', community: 'chess' });
    await pubsub.close();
    await reaches(1, 'notifier', 'notifications_written_total');
    await reaches(1, 'notifier', 'notifier_events_total', { consumer: 'notifications', outcome: 'handled' });
    const nc = await connect({ servers: cluster.natsUrl });
    await jetstream(nc).publish('ph.acme.local.main.-.notification.external', '{}');
    await nc.close();
    await reaches(1, 'notifier', 'dead_letters_total', {
      consumer: 'notifications',
      code: 'payload_invalid',
    });
    await reaches(1, 'notifier', 'notifier_events_total', { consumer: 'notifications', outcome: 'dead' });
    // It looks at the streams every half minute, and as it starts.
    await cluster.app('registry').restart();
    await reaches(1, 'registry', 'stream_messages', { stream: 'PH_DEAD' });
    expect(await value('registry', 'stream_limit_bytes', { stream: 'PH_GLOBAL' })).toBeGreaterThan(0);
    expect(await value('notifier', 'database_connections_limit')).toBeGreaterThan(0);
  });

  it('has as many series however many audiences, users and topics there are', async () => {
    const ids = async () => {
      const texts = await Promise.all((['gateway', 'auth', 'registry', 'notifier'] as const).map(scrape));
      const lines = texts.flatMap((text) => text.match(/^posthorn_[^ ]+/gm) ?? []);
      return lines.filter((line) => !/^posthorn_(?:process|nodejs)_/.test(line)).sort();
    };
    const before = await ids();
    for (let n = 0; n < 50; n++) {
      const tenant = await createTenant(cluster, `firm${n}`);
      const user = await tenant.as(`person${n}`);
      await user('POST', '/v1/hook', { topic: `place/${n}`, message: {} });
      await user('GET', `/v1/notifications`);
    }
    expect(await ids()).toEqual(before);
  });
});
