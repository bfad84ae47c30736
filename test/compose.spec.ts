/** docker-compose.yml keeps to its rules, and each rule finds what breaks it. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { tempDir } from '@posthorn/testing';
import { parse } from 'yaml';
import { writeSecrets } from '../tools/secrets.mjs';
import { type Compose, RULES } from './support/compose-rules.js';

const text = readFileSync('docker-compose.yml', 'utf8');
const parsed = (): Compose => parse(text, { merge: true });

/** The program, where this machine has one: it needs no engine to judge a file. */
const program = [['docker', 'compose'], ['docker-compose']].find(
  ([command = '', ...args]) => spawnSync(command, [...args, 'version']).status === 0,
);

function judge(environmentFile: string) {
  const [command = '', ...args] = program ?? [];
  return spawnSync(command, [...args, '--env-file', environmentFile, 'config', '--quiet'], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
}

describe('docker-compose.yml', () => {
  it.each(Object.entries(RULES))('%s', (_, rule) => {
    expect(rule(parsed())).toEqual([]);
  });

  it('is valid with the secrets of npm run secrets, and says what to do without them', async () => {
    await using dir = await tempDir();
    const [made, empty] = [join(dir.path, 'made.env'), join(dir.path, 'empty.env')];
    writeSecrets(made);
    writeFileSync(empty, '');
    // Without the program it is at least YAML that says this for each secret.
    expect(text.match(/:\?run npm run secrets first\}/g)?.length).toBeGreaterThan(8);
    if (!program) return;
    expect(judge(made)).toMatchObject({ status: 0, stderr: '' });
    expect(judge(empty)).toMatchObject({ stderr: expect.stringContaining('run npm run secrets first') });
  });
});

type Change = (compose: Compose) => unknown;

/** As the file takes a value from the environment. */
const from = (expression: string) => `$\{${expression}}`;

const FORBIDDEN: Record<keyof typeof RULES, Record<string, Change>> = {
  'opens nothing but the gateway': {
    'an open database': ({ services }) => Object.assign(services.postgres, { ports: ['5432:5432'] }),
    'a closed gateway': ({ services }) => delete services.gateway.ports,
    "the machine's own network": ({ services }) => Object.assign(services.auth, { network_mode: 'host' }),
  },
  'lets nobody out who does not verify tokens': {
    'a way out for all': ({ networks }) => delete networks.inside.internal,
    'a way out for one': ({ services }) => services.registry.networks.push('outside'),
    'one that is not inside': ({ services }) => delete services.nats.networks,
  },
  'names the version of each image': {
    latest: ({ services }) => Object.assign(services.nats, { image: 'nats:latest' }),
    'no tag': ({ services }) => Object.assign(services.postgres, { image: 'postgres' }),
  },
  'sets every variable that an app demands, and none that it does not know': {
    'a missing one': ({ services }) => delete services.auth.environment.KEY_SECRET,
    'an unknown one': ({ services }) => Object.assign(services.gateway.environment, { DATABASE_URL: 'x' }),
    'an app that the image does not have': ({ services }) =>
      Object.assign(services.auth, { command: ['oauth'] }),
  },
  'takes its secrets from the file that npm run secrets writes, and fails without it': {
    'a literal': ({ services }) => Object.assign(services.auth.environment, { KEY_SECRET: 'hush' }),
    'a default': ({ services }) =>
      Object.assign(services.auth.environment, { KEY_SECRET: from('KEY_SECRET:-hush') }),
    'nothing without the file': ({ services }) =>
      Object.assign(services.postgres.environment, { POSTGRES_PASSWORD: from('POSTGRES_PASSWORD-') }),
    'a name that nobody makes': ({ services }) =>
      Object.assign(services.auth.environment, { NATS_PASSWORD: from('NATS_PASSWORD:?') }),
  },
  'gives the servers what their configuration asks for': {
    'a missing password': ({ services }) => delete services.nats.environment.NATS_PASSWORD_AUTH,
    'a missing file': ({ services }) =>
      services.nats.volumes.push('./docker/other.conf:/etc/nats/other.conf'),
  },
  'starts each after what it needs': {
    'before its schema': ({ services }) =>
      Object.assign(services, {
        auth: { ...services.auth, depends_on: { nats: { condition: 'service_healthy' } } },
      }),
    'before the database': ({ services }) => delete services.migrations.depends_on,
  },
  'knows of each whether it is well, and brings it back': {
    'no check': ({ services }) => delete services.nats.healthcheck,
    'no return': ({ services }) => delete services.notifier.restart,
    'migrations for ever': ({ services }) => Object.assign(services.migrations, { restart: 'always' }),
  },
  'waits for the whole shutdown of an app': {
    'a longer drain': ({ services }) => Object.assign(services.gateway.environment, { DRAIN_BUDGET: '30s' }),
    'no time': ({ services }) => delete services.auth.stop_grace_period,
  },
  'gives no privileges': {
    'gaining privileges': ({ services }) => delete services.gateway.security_opt,
    capabilities: ({ services }) => delete services.nats.cap_drop,
    'a writable image': ({ services }) => delete services.auth.read_only,
  },
};

const cases = Object.entries(FORBIDDEN).flatMap(([rule, changes]) =>
  Object.entries(changes).map(([what, change]) => [rule, what, change] as const),
);

describe('a rule', () => {
  it.each(cases)('"%s" finds: %s', (rule, _, change) => {
    const compose = structuredClone(parsed());
    change(compose);
    expect(RULES[rule as keyof typeof RULES](compose)).not.toEqual([]);
  });
});
