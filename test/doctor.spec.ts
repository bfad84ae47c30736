/** The doctor (docs/operations.md, "Doctor"), on real servers in the wrong state, and on a cluster that is well. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { AckPolicy, jetstream, jetstreamManager, StorageType } from '@nats-io/jetstream';
import { connect, nanos } from '@nats-io/transport-node';
import { provisionStreams, streamConfigs } from '@posthorn/bus/platform';
import { examineDatabase } from '@posthorn/database';
import { checksTable, type Examine, type Finding } from '@posthorn/service';
import {
  createDatabase,
  eventually,
  freePort,
  prepareBus,
  startCluster,
  startNats,
  startNatsCluster,
  type TestDatabase,
  type TestNats,
} from '@posthorn/testing';
import pg from 'pg';
import { examine as examineAuth } from '../apps/auth/src/doctor.js';
import { examine as examineGateway } from '../apps/gateway/src/doctor.js';
import { examine as examineNotifier } from '../apps/notifier/src/doctor.js';
import { examine as examineRegistry } from '../apps/registry/src/doctor.js';
import { SCHEMA } from '../apps/registry/src/schema.js';

const MIB = 1024 ** 2;
const secret = () => randomBytes(32).toString('hex');
const SECRETS = { JWT_SECRET: secret(), KEY_SECRET: secret() };

const doctors = {
  auth: examineAuth,
  gateway: examineGateway,
  notifier: examineNotifier,
  registry: examineRegistry,
} satisfies Record<string, Examine>;

let database: TestDatabase;

beforeAll(async () => {
  database = await createDatabase();
});

afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

/** What an app's doctor finds, in an environment that has the rest of what the app wants. */
function examine(app: keyof typeof doctors, env: Record<string, string>): Promise<Finding[]> {
  return doctors[app]({
    ...(app !== 'gateway' && { DATABASE_URL: database.url }),
    ...(app === 'registry' && { STREAM_MAX_BYTES: String(256 * MIB) }),
    ...SECRETS,
    ...env,
  });
}

/** The findings of a check, each as `severity: found`. */
const of = (findings: readonly Finding[], id: string) =>
  findings.filter((one) => one.id === id).map(({ severity, found }) => `${severity}: ${found}`);

const remedies = (findings: readonly Finding[], id: string) =>
  findings.filter((one) => one.id === id).map(({ remedy }) => remedy);

describe('an empty NATS server', () => {
  let nats: TestNats;

  beforeAll(async () => {
    nats = await startNats();
  });

  afterAll(async () => {
    await nats[Symbol.asyncDispose]();
  });

  it('lacks what the registry makes', async () => {
    const found = await examine('registry', { NATS_URL: nats.url });
    expect(of(found, 'streams.settings')).toEqual([
      'failure: the stream PH_GLOBAL is missing',
      'failure: the stream PH_LOCAL is missing',
      'failure: the stream PH_DEAD is missing',
    ]);
    expect(of(found, 'buckets.settings')).toEqual([
      'failure: the bucket KV_ph-topics is missing',
      'failure: the bucket KV_ph-streams is missing',
    ]);
    expect(of(found, 'jetstream.available')).toEqual([expect.stringMatching(/^ok: /)]);
  });

  it('lacks what auth and the notifier make', async () => {
    expect(of(await examine('auth', { NATS_URL: nats.url }), 'buckets.settings')).toEqual([
      'failure: the bucket KV_ph-revoked is missing',
    ]);
    expect(of(await examine('notifier', { NATS_URL: nats.url }), 'consumers.settings')).toEqual([
      'failure: the consumer notifier-main of PH_LOCAL is missing',
      'failure: the consumer activitystreams-activity-main of PH_LOCAL is missing',
      'failure: the consumer activitystreams-join-main of PH_LOCAL is missing',
      'failure: the consumer dead-letters-main of PH_DEAD is missing',
    ]);
  });

  it('is left as it is', async () => {
    const nc = await connect({ servers: nats.url });
    const { streams, consumers } = await (await jetstreamManager(nc)).getAccountInfo();
    await nc.close();
    expect({ streams, consumers }).toEqual({ streams: 0, consumers: 0 });
  });

  it('has too few servers for three copies', async () => {
    const found = await examine('registry', { NATS_URL: nats.url, STREAM_REPLICAS: '3' });
    expect(of(found, 'jetstream.replicas')).toEqual(['failure: STREAM_REPLICAS is 3, with a lone server']);
  });

  it('does not show everything to a client, which is not taken for well', async () => {
    const found = await examine('registry', { NATS_URL: nats.url });
    expect(of(found, 'jetstream.sync')).toEqual([expect.stringMatching(/^unchecked: /)]);
    expect(of(found, 'jetstream.room')).toEqual([expect.stringMatching(/^unchecked: /)]);
  });
});

describe('a NATS server that others have set up', () => {
  let nats: TestNats;
  const port = freePort();

  beforeAll(async () => {
    nats = await startNats({ config: `http: "127.0.0.1:${await port}"\n` });
    const nc = await connect({ servers: nats.url });
    const jsm = await jetstreamManager(nc);
    const [global, local] = streamConfigs({ maxAgeSeconds: 604_800, maxBytes: 256 * MIB, replicas: 1 });
    await provisionStreams(nc, [{ ...(global as object), max_age: nanos(3_600_000) } as never]);
    await jsm.streams.add({ ...(local as object), storage: StorageType.Memory } as never);
    await jsm.streams.add({
      name: 'KV_ph-topics',
      subjects: ['$KV.ph-topics.>'],
      max_msgs_per_subject: 5,
      allow_rollup_hdrs: true,
    });
    await jsm.consumers.add('PH_LOCAL', {
      durable_name: 'notifier-main',
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(30_000),
      max_ack_pending: 2,
      filter_subject: 'ph.*.local.main.>',
    });
    await nc.close();
  });

  afterAll(async () => {
    await nats[Symbol.asyncDispose]();
  });

  it('differs in a setting that can be changed live, and is told to', async () => {
    const found = await examine('registry', { NATS_URL: nats.url });
    expect(of(found, 'streams.settings')).toContain(
      'warning: the stream PH_GLOBAL: max_age is 3600 s, wanted 604800 s (can be changed live)',
    );
    expect(remedies(found, 'streams.settings')[0]).toContain('Roll the registry out');
  });

  it('differs in a setting that needs another stream, and is told how', async () => {
    const found = await examine('registry', { NATS_URL: nats.url });
    expect(of(found, 'streams.settings')).toContain(
      'failure: the stream PH_LOCAL: storage is memory, wanted file (cannot be changed live)',
    );
    expect(remedies(found, 'streams.settings')[1]).toContain('nats stream rm PH_LOCAL');
  });

  it('has a bucket that nobody would change', async () => {
    const found = await examine('registry', { NATS_URL: nats.url });
    expect(of(found, 'buckets.settings')).toContain(
      'warning: the bucket KV_ph-topics: max_msgs_per_subject is 5, wanted 1 (can be changed live)',
    );
  });

  it('has a consumer with other limits, which nobody pulls from, or which is at them', async () => {
    const before = await examine('notifier', { NATS_URL: nats.url });
    expect(of(before, 'consumers.settings')).toContain(
      'warning: the consumer notifier-main of PH_LOCAL: max_ack_pending is 2, wanted 1024 (can be changed live)',
    );
    expect(of(before, 'consumers.backlog')).toEqual([
      'warning: notifier-main: 0 waiting, 0 in work, and nobody takes them',
    ]);
    const nc = await connect({ servers: nats.url });
    const js = jetstream(nc);
    for (const name of ['a', 'b', 'c']) await js.publish(`ph.acme.local.main.-.orders.${name}`, '{}');
    const consumer = await js.consumers.get('PH_LOCAL', 'notifier-main');
    for (let taken = 0; taken < 2; taken++) expect(await consumer.next()).not.toBeNull();
    const after = await examine('notifier', { NATS_URL: nats.url });
    await nc.close();
    expect(of(after, 'consumers.backlog')).toEqual([
      'warning: notifier-main: 1 waiting, 2 in work, which is its limit',
    ]);
  });

  it('shows its flushes, its room and its time on its monitoring port', async () => {
    const monitor = { NATS_URL: nats.url, NATS_MONITOR_URL: `http://127.0.0.1:${await port}` };
    const found = await examine('registry', { ...monitor, STREAM_MAX_BYTES: String(2 ** 50) });
    // 2.9 flushes every two minutes; a later one that is not told otherwise, too.
    expect(of(found, 'jetstream.sync')).toEqual([expect.stringMatching(/^(warning|unchecked): /)]);
    expect(of(found, 'jetstream.room')).toEqual([
      expect.stringMatching(/^failure: .* and our streams may hold 2048(\.0)? TiB$/),
    ]);
    expect(of(found, 'clock.nats')).toEqual([expect.stringMatching(/^ok: within \d+ ms of NATS server /)]);
  });

  it('says which monitoring port does not answer', async () => {
    const found = await examine('registry', { NATS_URL: nats.url, NATS_MONITOR_URL: 'http://127.0.0.1:1' });
    expect(of(found, 'jetstream.sync')).toEqual([expect.stringMatching(/^failure: .*127\.0\.0\.1:1: /)]);
  });
});

describe('NATS that does not take an app', () => {
  it('is away', async () => {
    const found = await examine('gateway', { NATS_URL: 'nats://127.0.0.1:1' });
    expect(of(found, 'nats.reachable')).toEqual(['failure: 127.0.0.1:1: connection refused']);
  });

  it('refuses the password, is without JetStream, or limits what may be stored', async () => {
    await using nats = await startNats({
      config: `accounts {
        BARE { users: [{ user: bare, password: sesame-bare }] }
        SMALL { jetstream: { max_file: ${300 * MIB} }, users: [{ user: small, password: sesame-small }] }
      }\n`,
    });
    const as = (user: string, password: string) => ({
      NATS_URL: nats.url,
      NATS_USER: user,
      NATS_PASSWORD: password,
    });
    const [refused, bare, small] = await Promise.all([
      examine('registry', as('bare', 'wrong-password')),
      examine('registry', as('bare', 'sesame-bare')),
      examine('registry', as('small', 'sesame-small')),
    ]);
    expect(of(refused, 'nats.reachable')).toEqual([
      expect.stringMatching(/^failure: .*authorization violation/i),
    ]);
    expect(remedies(refused, 'nats.reachable')).toEqual([expect.stringContaining('NATS_PASSWORD')]);
    expect(of(bare, 'jetstream.available')).toEqual([
      expect.stringMatching(/^failure: JetStream does not answer/),
    ]);
    expect(of(small, 'jetstream.room')).toContain(
      'failure: the account may store 300 MiB, and our streams 768 MiB with all copies',
    );
    expect(of(bare, 'nats.login')).toEqual(['ok: NATS asks for a login']);
    expect(of(bare, 'secrets.passwords')).toEqual([
      expect.stringMatching(/^warning: the password in NATS_PASSWORD /),
    ]);
    expect(JSON.stringify([refused, bare, small])).not.toMatch(/sesame|wrong-password/);
  });
});

describe('a cluster of three', () => {
  it('has as many copies as are wanted, or names each stream and bucket that has not', async () => {
    await using nats = await startNatsCluster();
    await prepareBus(nats, { replicas: 3 });
    const env = { NATS_URL: nats.url, STREAM_MAX_AGE: '3600' };
    let well: Finding[] = [];
    await eventually(async () => {
      well = await examine('registry', { ...env, STREAM_REPLICAS: '3' });
      return of(well, 'streams.copies').filter((text) => text.startsWith('ok: ')).length === 5;
    });
    expect(of(well, 'jetstream.replicas')).toEqual(['ok: STREAM_REPLICAS is 3, with a cluster of 3 servers']);
    expect(of(well, 'streams.settings')).toEqual([
      'ok: the stream PH_GLOBAL is as wanted',
      'ok: the stream PH_LOCAL is as wanted',
      'ok: the stream PH_DEAD is as wanted',
    ]);
    const fewer = await examine('registry', { ...env, STREAM_REPLICAS: '1' });
    for (const found of [of(fewer, 'streams.settings'), of(fewer, 'buckets.settings')]) {
      expect(found.length).toBeGreaterThan(1);
      for (const text of found)
        expect(text).toMatch(/^warning: .*num_replicas is 3, wanted 1 \(can be changed live\)/);
    }
  });
});

describe('a database', () => {
  const store = (databaseUrl: string) => ({
    databaseUrl,
    databasePool: 10,
    databaseCa: undefined,
    databaseCert: undefined,
    databaseKey: undefined,
  });
  const look = (url: string, now?: () => number) => examineDatabase('registry', store(url), SCHEMA, now);

  it('lacks migrations, and is left without them', async () => {
    for (const _ of ['first', 'second'])
      expect(of(await look(database.url), 'database.migrations')).toEqual([
        'failure: the schema registry lacks Registry1800000000000, Usage1800000100000',
      ]);
  });

  it('has migrations that this version does not know, which is no failure: a roll-out may be under way', async () => {
    await using newer = await createDatabase();
    const client = new pg.Client(newer.url);
    await client.connect();
    await client.query('CREATE SCHEMA registry');
    await client.query('CREATE TABLE registry.migrations (id serial, timestamp bigint, name text)');
    for (const name of ['Registry1800000000000', 'Usage1800000100000', 'Later1900000000000'])
      await client.query('INSERT INTO registry.migrations (timestamp, name) VALUES (1, $1)', [name]);
    await client.end();
    expect(of(await look(newer.url), 'database.migrations')).toEqual([
      'warning: the schema registry has Later1900000000000, which this version does not know',
    ]);
  });

  it('is told from others by its version, its encryption, its room, and what it writes to disk', async () => {
    const found = await look(database.url);
    expect(of(found, 'database.version')).toEqual([expect.stringMatching(/^ok: PostgreSQL 1[7-9]/)]);
    expect(of(found, 'database.tls')).toEqual(['ok: not encrypted, on this machine']);
    // The servers of the tests do not wait for the disk.
    expect(of(found, 'database.durability')).toEqual([expect.stringMatching(/^warning: fsync/)]);
    const many = await examineDatabase('registry', { ...store(database.url), databasePool: 500 }, SCHEMA);
    expect(of(many, 'database.connections')).toEqual([expect.stringMatching(/^warning: \d+ connections /)]);
  });

  it('has another time than this machine', async () => {
    expect(of(await look(database.url), 'clock.database')).toEqual([expect.stringMatching(/^ok: within/)]);
    expect(of(await look(database.url, () => Date.now() + 7_200_000), 'clock.database')).toEqual([
      expect.stringMatching(/^failure: the clock of PostgreSQL is 7\d{3}\.\d s behind this machine's/),
    ]);
  });

  it('is away, is another, or refuses the password', async () => {
    const changed = (change: (url: URL) => void) => {
      const url = new URL(database.url);
      change(url);
      return url.href;
    };
    const away = await look(
      changed((url) => {
        url.port = '1';
      }),
    );
    const missing = await look(
      changed((url) => {
        url.pathname = 'nowhere';
      }),
    );
    const refused = await look(
      changed((url) => {
        url.password = 'sesame';
      }),
    );
    expect(of(away, 'database.reachable')).toEqual([expect.stringMatching(/^failure: .*ECONNREFUSED/)]);
    expect(remedies(missing, 'database.reachable')).toEqual([
      expect.stringContaining('CREATE DATABASE nowhere'),
    ]);
    expect(remedies(refused, 'database.reachable')).toEqual([expect.stringContaining('user and password')]);
    expect(JSON.stringify([away, missing, refused])).not.toContain('sesame');
  });
});

describe('the configuration', () => {
  const production = { NODE_ENV: 'production', NATS_URL: 'nats://127.0.0.1:1', ...SECRETS };
  const browser = async (env: Record<string, string>) => {
    const found = await examine('gateway', { ...production, ...env });
    return Object.fromEntries(
      found.filter(({ id }) => id.startsWith('origins.')).map(({ id, severity }) => [id.slice(8), severity]),
    );
  };

  it('is what an app would refuse to start with', async () => {
    const found = await examine('gateway', { ...production, KEY_SECRET: 'short', DEMO: '1' });
    expect(of(found, 'config.valid')).toEqual([
      expect.stringMatching(
        /^failure: KEY_SECRET is a value of 5 bytes \(not shown\), wants at least 32 bytes/,
      ),
      expect.stringMatching(/^failure: DEMO is /),
    ]);
  });

  it.each([
    ['nothing', {}, { allowed: 'warning', 'public-url': 'failure', proxy: 'ok' }],
    [
      'everything by TLS',
      {
        ALLOWED_ORIGINS: 'https://app.example.com',
        PUBLIC_WS_URL: 'wss://live.example.com',
        TRUST_PROXY: '1',
      },
      { allowed: 'ok', 'public-url': 'ok', proxy: 'ok' },
    ],
    [
      'TLS of a proxy that is not trusted, and all origins',
      { ALLOWED_ORIGINS: '*', PUBLIC_WS_URL: 'wss://live.example.com' },
      { allowed: 'warning', 'public-url': 'ok', proxy: 'warning' },
    ],
    [
      'an address without TLS',
      { ALLOWED_ORIGINS: 'https://app.example.com', PUBLIC_WS_URL: 'ws://live.example.com' },
      { allowed: 'ok', 'public-url': 'warning', proxy: 'ok' },
    ],
    [
      'a page without TLS, and an address of this machine',
      { ALLOWED_ORIGINS: 'http://app.example.com', PUBLIC_WS_URL: 'wss://localhost', TRUST_PROXY: '1' },
      { allowed: 'warning', 'public-url': 'warning', proxy: 'ok' },
    ],
  ])('for browsers, with %s', async (_, env, severities) => {
    expect(await browser(env)).toEqual(severities);
  });
});

describe('a cluster that is well', () => {
  it('has no failure, asked with the logins of its apps, in which the doctor may ask everything', async () => {
    await using cluster = await startCluster({ accounts: {} });
    const { nats, secrets } = cluster;
    for (const app of ['auth', 'registry', 'notifier', 'gateway'] as const) {
      const { user, password } = cluster.natsLogin(app);
      const found = await examine(app, {
        NATS_URL: nats.url,
        NATS_USER: user,
        NATS_PASSWORD: password,
        ...(app !== 'gateway' && { DATABASE_URL: cluster.databaseUrl }),
        JWT_SECRET: secrets.jwt,
        KEY_SECRET: secrets.key,
      });
      const wrong = found.filter(({ severity }) => severity === 'warning' || severity === 'failure');
      // The database of tests does not wait for the disk; everything else is as it should be.
      expect([app, wrong.map(({ id, found: what }) => `${id}: ${what}`)]).toEqual([
        app,
        app === 'gateway' ? [] : [expect.stringMatching(/^database\.durability: /)],
      ]);
      expect(of(found, 'nats.reachable')).toEqual([expect.stringMatching(/^ok: /)]);
    }
  });
});

describe('node docker/run.mjs', () => {
  const run = (args: string[], env: Record<string, string>) =>
    spawnSync(process.execPath, ['docker/run.mjs', ...args], { env, encoding: 'utf8', timeout: 60_000 });
  const away = { NATS_URL: 'nats://127.0.0.1:1', ...SECRETS };

  it('doctor prints what is wrong, and ends with 1', () => {
    const { status, stdout, stderr } = run(['doctor', 'gateway'], away);
    expect([status, stderr]).toEqual([1, '']);
    expect(stdout).toMatch(
      /^FAILURE {2}nats\.reachable \(gateway\)\n {2}127\.0\.0\.1:1: connection refused\.\n {2}Why {3}/m,
    );
    expect(stdout).toMatch(/\n1 failure, 0 warnings, 0 not checked, \d+ ok\n$/);
    expect(stdout).not.toContain('\u001b');
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  it('doctor --json says the same to machines, for all apps', () => {
    const { status, stdout } = run(['doctor', '--json'], away);
    expect(status).toBe(1);
    const { findings } = JSON.parse(stdout) as { findings: (Finding & { apps: string[] })[] };
    expect(findings).toContainEqual(
      expect.objectContaining({
        id: 'config.valid',
        severity: 'failure',
        apps: ['auth', 'registry', 'notifier'],
      }),
    );
  });

  it('doctor does not understand the name of no app: 2', () => {
    const { status, stderr } = run(['doctor', 'gatway'], away);
    expect(status).toBe(2);
    expect(stderr).toContain('doctor [gateway|auth|registry|notifier]');
  });

  it('does not start an app in production whose secrets can be guessed, and says so as the doctor does', () => {
    const guessable = 'change-me-change-me-change-me-change-me';
    const { status, stderr, stdout } = run(['gateway'], {
      ...away,
      NODE_ENV: 'production',
      PORT: '0',
      HOST: '127.0.0.1',
      JWT_SECRET: guessable,
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /^It is not safe to run like this:\nsecrets\.signing: JWT_SECRET is made of a word that everybody tries\.\n {2}Why: .*\n {2}Do: {2}/,
    );
    expect(stderr + stdout).not.toContain(guessable);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});

describe('docs/operations.md', () => {
  it('has the table of all checks', () => {
    expect(readFileSync('docs/operations.md', 'utf8')).toContain(checksTable());
  });
});
