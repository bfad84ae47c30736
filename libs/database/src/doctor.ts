/** Looks at an app's part of the database, with the app's login and encryption, and changes nothing. */
import { clockFinding, type Finding, finding, isLoopback, ok, reasonOf } from '@posthorn/service';
import { DataSource } from 'typeorm';
import { type DatabaseOptions, dataSourceOptions } from './data-source.js';
import type { StoreConfig } from './store.js';
import { databaseSettings, databaseTlsRefusal } from './tls.js';

/** The oldest that is supported. */
const OLDEST_MAJOR = 17;
/** Pools of auth, registry and notifier with two processes each; a roll-out has three more. docs/operations.md. */
const POOLS = { always: 6, rolling: 9 } as const;

/** What the server says of itself; one question, and cheap. */
interface ServerFacts {
  readonly version: string;
  readonly version_num: number;
  readonly encrypted: boolean | null;
  readonly fsync: string;
  readonly full_page_writes: string;
  readonly synchronous_commit: string;
  readonly max_connections: number;
  readonly reserved: number;
  readonly role_limit: number;
  readonly now_ms: string;
}

const FACTS = `
  SELECT current_setting('server_version') AS version,
         current_setting('server_version_num')::int AS version_num,
         (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted,
         current_setting('fsync') AS fsync,
         current_setting('full_page_writes') AS full_page_writes,
         current_setting('synchronous_commit') AS synchronous_commit,
         current_setting('max_connections')::int AS max_connections,
         current_setting('superuser_reserved_connections')::int AS reserved,
         (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
         floor(extract(epoch FROM clock_timestamp()) * 1000)::text AS now_ms`;

/**
 * @param app the app's name, which is also its schema's
 * @param now this machine's time, in milliseconds of the epoch
 */
export async function examineDatabase(
  app: string,
  config: StoreConfig,
  content: Pick<DatabaseOptions, 'entities' | 'migrations'>,
  now: () => number = Date.now,
): Promise<Finding[]> {
  const source = new DataSource(
    dataSourceOptions({ ...content, ...databaseSettings(config), schema: app, poolSize: 1 }),
  );
  try {
    await source.initialize();
  } catch (error) {
    if (!source.isInitialized) await source.driver.disconnect().catch(() => undefined);
    return [unreachable(error, config)];
  }
  try {
    return [
      ok('database.reachable', `connected to ${new URL(config.databaseUrl).host}`),
      ...(await databaseFindings(source, config, now)),
      await migrationsFinding(source, app),
    ];
  } finally {
    await source.destroy();
  }
}

/** The server's part of it, on a connection that is there. */
export async function databaseFindings(
  source: DataSource,
  config: StoreConfig,
  now: () => number = Date.now,
): Promise<Finding[]> {
  // The first question of a connection may wait for its making.
  await source.query('SELECT 1');
  const asked = now();
  const [facts] = (await source.query(FACTS)) as [ServerFacts];
  const answered = now();
  return [
    versionFinding(facts),
    encryptionFinding(facts, config),
    durabilityFinding(facts),
    connectionsFinding(facts, config.databasePool),
    clockFinding('clock.database', 'PostgreSQL', { asked, answered, theirs: Number(facts.now_ms) }),
  ];
}

function versionFinding({ version, version_num }: ServerFacts): Finding {
  const [number] = version.split(' ');
  if (version_num >= OLDEST_MAJOR * 10_000) return ok('database.version', `PostgreSQL ${number}`);
  return finding(
    'database.version',
    'failure',
    `PostgreSQL ${number}, and ${OLDEST_MAJOR} or later is wanted`,
    'Upgrade the server (pg_upgrade, or dump and restore).',
  );
}

function encryptionFinding({ encrypted }: ServerFacts, { databaseUrl }: StoreConfig): Finding {
  if (encrypted) return ok('database.tls', 'encrypted');
  const { hostname } = new URL(databaseUrl);
  // Without a host it is a socket of this machine.
  if (hostname === '' || isLoopback(hostname)) return ok('database.tls', 'not encrypted, on this machine');
  return finding(
    'database.tls',
    'warning',
    `the connection to ${hostname} is not encrypted`,
    'Add sslmode=verify-full to DATABASE_URL, unless the network itself encrypts (a mesh, WireGuard).',
  );
}

function durabilityFinding({ fsync, full_page_writes, synchronous_commit }: ServerFacts): Finding {
  const off = Object.entries({ fsync, full_page_writes, synchronous_commit })
    .filter(([, value]) => value === 'off')
    .map(([name]) => name);
  if (off.length === 0)
    return ok('database.durability', 'fsync, full_page_writes and synchronous_commit are on');
  return finding(
    'database.durability',
    'warning',
    `${off.join(', ')}: off`,
    'Switch them on in postgresql.conf, and for the role and the database where they are set there, and reload.',
  );
}

function connectionsFinding({ max_connections, reserved, role_limit }: ServerFacts, pool: number): Finding {
  const free = max_connections - reserved;
  const most = role_limit >= 0 ? Math.min(free, role_limit) : free;
  const found = `${most} connections for ${POOLS.always} to ${POOLS.rolling} processes with pools of ${pool}`;
  if (most >= POOLS.rolling * pool) return ok('database.connections', found);
  return finding(
    'database.connections',
    'warning',
    found,
    `Raise max_connections${role_limit >= 0 ? ', and the limit of the role,' : ''} to ${POOLS.rolling * pool + reserved} or more, or lower DATABASE_POOL. Fewer processes need less.`,
  );
}

/** Which migrations are known here and not there, and the other way round. */
async function migrationsFinding(source: DataSource, schema: string): Promise<Finding> {
  const [{ table } = { table: null }] = (await source.query('SELECT to_regclass($1)::text AS table', [
    `"${schema}".migrations`,
  ])) as { table: string | null }[];
  const rows =
    table === null
      ? []
      : ((await source.query(`SELECT name FROM "${schema}".migrations`)) as { name: string }[]);
  const done = new Set(rows.map(({ name }) => name));
  const known = new Set(source.migrations.map(({ name, constructor: made }) => name ?? made.name));
  const pending = [...known].filter((name) => !done.has(name));
  const newer = [...done].filter((name) => !known.has(name));
  if (pending.length > 0)
    return finding(
      'database.migrations',
      'failure',
      `the schema ${schema} lacks ${pending.join(', ')}`,
      'Run the migrations: node docker/run.mjs migrate in the image, the Job migrations in Kubernetes. The app does it at its start, too.',
    );
  if (newer.length > 0)
    return finding(
      'database.migrations',
      'warning',
      `the schema ${schema} has ${newer.join(', ')}, which this version does not know`,
      'In a roll-out that passes. Otherwise this version is older than the one that ran last: roll out that one again, or see in its release notes whether the older one can work with it.',
    );
  return ok('database.migrations', `the schema ${schema} has all ${known.size} migrations`);
}

function unreachable(error: unknown, config: StoreConfig): Finding {
  const { url, tls } = databaseSettings(config);
  const { host, pathname } = new URL(url);
  const { code } = error as { code?: string };
  // SQLSTATE class 28 and 42501: who we are; 3D000: no such database.
  const remedy =
    code?.startsWith('28') || code === '42501'
      ? 'Compare user and password in DATABASE_URL with the role of the server, and its pg_hba.conf.'
      : code === '3D000'
        ? `Make the database: CREATE DATABASE ${pathname.slice(1)} OWNER <role>.`
        : 'Start PostgreSQL, or set DATABASE_URL to where it is; the name has to resolve here, no network policy may be in between, and with sslmode=verify-full its certificate has to be trusted.';
  return finding(
    'database.reachable',
    'failure',
    `${host}${pathname}: ${reasonOf(databaseTlsRefusal(error, url, tls) ?? error)}`,
    remedy,
  );
}
