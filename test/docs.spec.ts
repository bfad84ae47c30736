import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, normalize } from 'node:path';
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

  it('has a heading of its own for each topic', () => {
    const anchors = anchorsOf(page);
    expect(anchors.length).toBeGreaterThan(contracts.CATALOGUE.size);
    expect(anchors.filter((anchor) => /-\d+$/.test(anchor))).toEqual([]);
  });
});

describe('the documents of the repository', () => {
  const documents = new Map(markdownFiles().map((file) => [file, readFileSync(file, 'utf8')]));

  it('lead with each relative link to a file that is there, and to a heading in it', () => {
    const broken = [...documents].flatMap(([file, text]) =>
      linksOf(text)
        .filter((link) => !leads(file, link))
        .map((link) => `${file}: ${link}`),
    );
    expect(broken).toEqual([]);
  });

  it('are all reached from the README, by links', () => {
    const reached = new Set(['README.md']);
    for (const file of reached) {
      for (const link of linksOf(documents.get(file) ?? '')) {
        const target = targetOf(file, link).path;
        if (documents.has(target)) reached.add(target);
        // A folder shows what is in it.
        for (const inside of documents.keys()) {
          if (join(inside, '..') === target) reached.add(inside);
        }
      }
    }
    expect([...documents.keys()].filter((file) => !reached.has(file))).toEqual([]);
  });

  it.each([
    ['a file that is not there', 'nowhere.md', false],
    ['a heading that is not there', 'docs/operations.md#nowhere', false],
    ['a heading in a file that has none', 'LICENSE#apache', false],
    ['a heading of the same file', '#try-it', true],
    ['a heading of another file', 'docs/security.md#nats-accounts', true],
    ['a folder', 'docs/adr/', true],
  ])('are checked for %s', (_, link, good) => {
    expect(leads('README.md', link)).toBe(good);
  });

  function leads(file: string, link: string): boolean {
    const { path, anchor } = targetOf(file, link);
    if (!existsSync(path)) return false;
    return anchor === undefined || anchorsOf(documents.get(path) ?? '').includes(anchor);
  }
});

/** All Markdown files that are ours, by their paths from the root of the checkout. */
function markdownFiles(folder = '.'): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (/^\.|^node_modules$|^dist$|^coverage$/.test(entry.name)) return [];
    if (entry.isDirectory()) return markdownFiles(path);
    return path.endsWith('.md') ? [path] : [];
  });
}

function withoutCode(text: string): string {
  return text.replace(/^```.*?^```/gms, '');
}

/** Where the links of a document lead that stay in the repository. */
function linksOf(text: string): string[] {
  const links = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
  return links.filter((link) => !/^[a-z]+:/.test(link));
}

function targetOf(file: string, link: string): { path: string; anchor: string | undefined } {
  const [path = '', anchor] = link.split('#');
  return { path: path === '' ? file : normalize(join(file, '..', path)).replace(/\/$/, ''), anchor };
}

/** What the headings of a document are reached by, as GitHub makes it. */
function anchorsOf(text: string): string[] {
  const seen = new Map<string, number>();
  return [...withoutCode(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => {
    const anchor = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .trim()
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\-_ ]/gu, '')
      .replaceAll(' ', '-');
    const times = seen.get(anchor) ?? 0;
    seen.set(anchor, times + 1);
    return times === 0 ? anchor : `${anchor}-${times}`;
  });
}
