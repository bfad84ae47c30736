import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { type ConfigRow, describeConfig } from '@posthorn/service';
import { parse, parseAllDocuments } from 'yaml';
import { AUTH_FIELDS } from '../apps/auth/src/config.js';
import { GATEWAY_FIELDS } from '../apps/gateway/src/config.js';
import { NOTIFIER_FIELDS } from '../apps/notifier/src/config.js';
import { REGISTRY_FIELDS } from '../apps/registry/src/config.js';

const apps = {
  auth: describeConfig(AUTH_FIELDS),
  registry: describeConfig(REGISTRY_FIELDS),
  gateway: describeConfig(GATEWAY_FIELDS),
  notifier: describeConfig(NOTIFIER_FIELDS),
};

/** What an app does not start without in production. JWT_SECRET or JWKS_URL is a rule of its own. */
function required(rows: readonly ConfigRow[]): string[] {
  const names = rows.map(({ name }) => name);
  const always = rows.filter((row) => row.required !== 'no').map(({ name }) => name);
  return names.includes('JWT_SECRET') ? [...always, 'JWT_SECRET'] : always;
}

describe.each(Object.entries(apps))('the deployment of %s', (app, rows) => {
  it('has every variable that the app demands, in docker-compose.yml', () => {
    const compose = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true });
    expect(Object.keys(compose.services[app].environment)).toEqual(expect.arrayContaining(required(rows)));
  });

  it('has every variable that the app demands, in k8s/, and none that it does not know', () => {
    const documents = parseAllDocuments(readFileSync(`k8s/${app}.yaml`, 'utf8')).map((one) => one.toJS());
    const deployment = documents.find(({ kind }) => kind === 'Deployment');
    const names = deployment.spec.template.spec.containers[0].env.map(({ name }: { name: string }) => name);
    expect(names).toEqual(expect.arrayContaining(required(rows)));
    expect(rows.map(({ name }) => name)).toEqual(expect.arrayContaining(names));
  });

  it('does not start in production without them, and names each', () => {
    const entry = `dist/apps/${app}/src/main.js`;
    const run = () =>
      execFileSync(process.execPath, [entry], { env: { NODE_ENV: 'production', PORT: '0' }, stdio: 'pipe' });
    const error = thrownBy(run) as { status: number; stderr: Buffer };
    expect(error.status).toBe(1);
    for (const name of required(rows)) expect(error.stderr.toString()).toContain(name);
    expect(error.stderr.toString()).not.toMatch(/\n\s+at /);
  });
});

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error('the process ended well');
}
