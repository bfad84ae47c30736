/** Every variable of every app: what a wrong value of it ends the start with. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { MIGRATION_FIELDS } from '@posthorn/database';
import { ConfigError, type Field, readConfig } from '@posthorn/service';
import { AUTH_FIELDS } from '../apps/auth/src/config.js';
import { GATEWAY_FIELDS } from '../apps/gateway/src/config.js';
import { NOTIFIER_FIELDS } from '../apps/notifier/src/config.js';
import { REGISTRY_FIELDS } from '../apps/registry/src/config.js';

const TABLES: Record<string, Record<string, Field<unknown>>> = {
  gateway: GATEWAY_FIELDS,
  auth: AUTH_FIELDS,
  registry: REGISTRY_FIELDS,
  notifier: NOTIFIER_FIELDS,
  migrate: MIGRATION_FIELDS,
};

const HIDDEN = 'sesame-open';

/** Values that no variable of this type takes, in production. A type that is not here has no rows. */
function wrongValues(type: string): string[] {
  if (type.includes(' | ')) return ['nonsense', type, type.split(' | ')[0]!.toUpperCase()];
  const values: Record<string, string[]> = {
    integer: ['nonsense', '-1', '1.5', '1e3', '0x10', '10k', '99999999999999999999'],
    boolean: ['nonsense', '2', 'ja'],
    duration: ['nonsense', '5', '-5s', '1.5h', '5 min', '99999999999999999999d'],
    URL: ['nonsense', `ftp://me:${HIDDEN}@x`, `me:${HIDDEN}@x:1`, '//x'],
    'URLs, comma-separated': [
      'nonsense',
      `http://me:${HIDDEN}@x`,
      `nats://a:4222,ftp://me:${HIDDEN}@b`,
      `me:${HIDDEN}@x`,
    ],
    'number from 0 to 1': ['nonsense', '-0.1', '1.1', 'NaN', '50%'],
    path: ['/nowhere/at/all', '.', 'package.json', `-----BEGIN PRIVATE KEY-----\n${HIDDEN}\n`],
  };
  const found = values[type];
  if (!found) throw new Error(`no wrong values are known of the type ${type}`);
  return found;
}

/**
 * Any text is one of these: a wrong one is found out by whom it is said to. HOST is found out when the app listens,
 * and a secret that is too short by itself (below).
 */
const ANY_TEXT = ['HOST', 'NATS_USER', 'JWT_ISSUER', 'INSTANCE', 'ALLOWED_ORIGINS', 'ADDRESS_EXEMPT'];
const FREE = ['text', 'list, comma-separated'];
/** Secrets without a least length: whoever gave them says how long they are. */
const ANY_SECRET = ['NATS_PASSWORD', 'NATS_NKEY_SEED', 'OTEL_EXPORTER_OTLP_HEADERS'];

const rows = Object.entries(TABLES).flatMap(([app, table]) =>
  Object.values(table).map((field) => [app, field.name, field] as const),
);

/** What is found wrong with one variable alone. */
function findingsFor(field: Field<unknown>, value: string) {
  try {
    readConfig({ field }, { env: { NODE_ENV: 'production', [field.name]: value } });
  } catch (error) {
    if (error instanceof ConfigError) return { findings: error.findings, message: error.message };
    throw error;
  }
  return { findings: [], message: '' };
}

describe('a wrong value', () => {
  it.each(rows)(
    'of %s %s is named, shown unless it is secret, and answered with what is wanted',
    (_, name, field) => {
      if (FREE.includes(field.type)) {
        expect(ANY_TEXT).toContain(name);
        return;
      }
      const values = field.type === 'secret' ? [HIDDEN] : wrongValues(field.type);
      for (const value of values) {
        const { findings, message } = findingsFor(field, value);
        if (ANY_SECRET.includes(name)) {
          expect(findings).toEqual([]);
          continue;
        }
        expect(findings).toEqual([{ name, got: expect.any(String), wants: expect.stringMatching(/\S \S/) }]);
        const { got } = findings[0]!;
        if (field.secret || value.includes(HIDDEN))
          expect(got).toMatch(/^a value of \d+ bytes \(not shown\)/);
        else expect(got).toContain(JSON.stringify(value));
        expect(message).toContain(`  ${name}: got `);
        expect(message).not.toContain(HIDDEN);
      }
    },
  );

  it('of every variable of an app is told at once', () => {
    for (const table of Object.values(TABLES)) {
      const wrong = Object.values(table).filter(({ type }) => ![...FREE, 'secret'].includes(type));
      const env = Object.fromEntries(wrong.map(({ name, type }) => [name, wrongValues(type)[0]!]));
      let findings: readonly { name: string }[] = [];
      try {
        readConfig(table, { env });
      } catch (error) {
        findings = (error as ConfigError).findings;
      }
      expect(findings.map(({ name }) => name)).toEqual(expect.arrayContaining(wrong.map(({ name }) => name)));
    }
  });
});

describe('the environment', () => {
  const sources = ['apps', 'libs'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts') && !path.endsWith('.spec.ts'))
      .filter((path) => !path.includes('node_modules'))
      .map((path) => join(folder, path)),
  );

  it('is read by what starts an app and by nobody else, and handed to its table', () => {
    const readers = sources.filter((path) =>
      /process\s*\.\s*env|\benv\b[^;]*from 'node:process'/.test(readFileSync(path, 'utf8')),
    );
    expect(readers.length).toBeGreaterThan(0);
    for (const path of readers) {
      expect(path).toMatch(/^apps\/\w+\/src\/(main|migrate)\.ts$/);
      const uses = readFileSync(path, 'utf8').match(/[^\n]*process\.env[^\n]*/g) ?? [];
      for (const use of uses)
        expect(use).toMatch(/(read\w+Config\(process\.env\)|runMigrations\('\w+', process\.env, )/);
    }
  });

  it('has all its variables in docs/configuration.md', () => {
    const page = readFileSync('docs/configuration.md', 'utf8');
    for (const [, name] of rows) expect(page).toContain(`\n| \`${name}\` | `);
  });
});
