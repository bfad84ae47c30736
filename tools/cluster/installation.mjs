/**
 * An installation as production has it, on one machine: three NATS servers with the configuration of k8s/, PostgreSQL,
 * two processes of each app, and a balancer before the gateways.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { apps, built } from '../checkout.mjs';
import { AppProcess } from '../embedded/app.mjs';
import { natsHealthy, startNatsFromFiles } from '../embedded/nats-files.mjs';
import { startPostgresServer } from '../embedded/postgres.mjs';
import { freePort } from '../embedded/process.mjs';
import { Balancer } from './balancer.mjs';

const SERVERS = 3;
const REPLICAS = 2;
const MIB = 1024 * 1024;
/** How long a stream may be without a leader, in milliseconds. */
const ELECTION_MS = 30_000;
/** What an app may take to end, in milliseconds: terminationGracePeriodSeconds of k8s/base. */
export const GRACE_MS = 45_000;

/** An internal service of this installation, for its load. */
export const SERVICE = 'load';

/**
 * @typedef {import('../checkout.mjs').AppName} AppName
 * @typedef {import('../embedded/nats.mjs').NatsServer} NatsServer
 * @typedef {import('../embedded/postgres.mjs').PostgresServer} PostgresServer
 *
 * @typedef {object} InstallationOptions
 * @property {string} dir for all data
 * @property {Record<string, string>} secrets as newSecrets() makes them
 * @property {Record<string, string>} [env] further configuration of the apps
 * @property {{ http: number, nats: readonly number[], database: number }} [ports] default: free ones
 * @property {string} [removeWhenOrphaned] a directory to delete should this process die without stopping
 */

export class Installation {
  /** @type {NatsServer[]} */
  nats = [];
  /** @type {PostgresServer | undefined} */
  postgres;
  /** @type {AppProcess[]} in the order of their start, the replicas of an app together */
  apps = [];
  /** @type {Balancer | undefined} */
  balancer;
  #options;
  /** @type {Record<string, string>} */
  #passwords = {};

  /** @param {InstallationOptions} options */
  constructor(options) {
    this.#options = options;
  }

  get url() {
    return this.balancer?.url ?? '';
  }

  get natsUrl() {
    return this.nats.map(({ url }) => url).join(',');
  }

  get databaseUrl() {
    return this.postgres?.url('posthorn') ?? '';
  }

  /** The services' and the operator's ways into NATS. @param {string} user */
  natsLogin(user) {
    return { user, password: this.#passwords[user] ?? '' };
  }

  async startNats() {
    const { natsConfig } = await built('libs/contracts/src/index.js');
    /** @type {import('../../libs/contracts/src/nats-config.js').NatsConfig} */
    const { text, logins } = natsConfig({ services: [{ name: SERVICE, audience: null }], operator: true });
    const { dir, secrets, ports, removeWhenOrphaned } = this.#options;
    /** @type {Record<string, string>} */
    const env = { NATS_PASSWORD_ROUTE: /** @type {string} */ (secrets.NATS_PASSWORD_ROUTE) };
    for (const { user, variable } of logins) {
      // It begins with a letter: nats-server reads a variable as it reads its configuration.
      env[variable] = secrets[variable] ?? `s${randomBytes(32).toString('hex')}`;
      this.#passwords[user] = env[variable];
    }
    this.nats = await startNatsFromFiles({
      file: 'k8s/base/nats/nats.conf',
      accounts: text,
      dir,
      size: SERVERS,
      env,
      ports: ports?.nats,
      removeWhenOrphaned,
    });
  }

  /** @param {{ fast?: boolean }} [options] fast: without care for what a power cut takes */
  async startPostgres({ fast } = {}) {
    const { dir, secrets, ports, removeWhenOrphaned } = this.#options;
    this.postgres = await startPostgresServer({
      dir: join(dir, 'postgres'),
      port: ports?.database,
      password: /** @type {string} */ (secrets.POSTGRES_PASSWORD),
      fast,
      removeWhenOrphaned,
    });
    await this.postgres.ensureDatabase('posthorn');
  }

  /** Starts the apps together, and the balancer; resolves when all are ready. */
  async startApps() {
    const port = this.#options.ports?.http ?? (await freePort());
    mkdirSync(join(this.#options.dir, 'logs'), { recursive: true, mode: 0o700 });
    for (const name of apps) {
      for (let index = 0; index < REPLICAS; index++) this.apps.push(await this.#app(name, index, port));
    }
    await Promise.all(this.apps.map((app) => app.start()));
    this.balancer = new Balancer(this.gateways);
    await this.balancer.listen(port);
  }

  get gateways() {
    return this.apps.filter(({ name }) => name === 'gateway');
  }

  /** How an app is called among the others: `gateway-0`. @param {AppProcess} app */
  nameOf(app) {
    return `${app.name}-${this.apps.filter(({ name }) => name === app.name).indexOf(app)}`;
  }

  /**
   * Who leads each stream that three servers keep, by its name.
   * @returns {Promise<Map<string, NatsServer | undefined>>}
   */
  async leaders() {
    const leaders = new Map();
    for (const server of this.nats) {
      const jsz = await server.monitor('jsz?streams=true').catch(() => undefined);
      for (const { stream_detail: streams = [] } of jsz?.account_details ?? []) {
        for (const { name, cluster } of streams) {
          if (!leaders.get(name))
            leaders.set(
              name,
              this.nats.find((one) => one.name === cluster?.leader),
            );
        }
      }
    }
    return new Map([...leaders].sort(([a], [b]) => a.localeCompare(b)));
  }

  /**
   * The server that leads a stream, and is there.
   * @param {string} stream
   */
  async leaderOf(stream) {
    for (const deadline = Date.now() + ELECTION_MS; ; await sleep(20)) {
      const leader = (await this.leaders()).get(stream);
      if (leader?.alive) return leader;
      if (Date.now() > deadline) throw new Error(`${stream} has had no leader for ${ELECTION_MS / 1000} s`);
    }
  }

  /**
   * Brings a server back, and resolves when it has caught up: another one may then go.
   * @param {NatsServer} server
   */
  async restartNats(server) {
    await server.start();
    await Promise.all(this.nats.map(natsHealthy));
  }

  /**
   * One process after the other: asked to end, waited for, started anew, waited for until it is ready.
   * @param {(app: AppProcess, end: { code: number | null, signal: NodeJS.Signals | null, ms: number }) => void} ended
   */
  async rollingRestart(ended) {
    for (const app of this.apps) {
      const began = performance.now();
      const { exited } = app;
      await app.stop(GRACE_MS);
      const { code, signal } = (await exited) ?? { code: null, signal: null };
      ended(app, { code, signal, ms: performance.now() - began });
      await app.start();
      while (app.name === 'gateway' && !this.balancer?.serves(app)) await sleep(20);
    }
  }

  /**
   * Ends everything: the public door first, the data last.
   * @param {(name: string, stop: () => Promise<void>) => Promise<void>} [each]
   */
  async stop(each = (_, stop) => stop()) {
    const { postgres, nats, balancer } = this;
    if (balancer) await each('balancer', () => balancer.close());
    for (const name of apps.toReversed()) {
      const alive = this.apps.filter((app) => app.name === name && app.alive);
      if (alive.length > 0) {
        await each(name, async () => void (await Promise.all(alive.map((app) => app.stop()))));
      }
    }
    if (postgres) await each('PostgreSQL', () => postgres.stop());
    if (nats.length > 0) {
      await each('NATS', async () => void (await Promise.all(nats.map((server) => server.stop()))));
    }
  }

  /** Ends everything as a crash would. */
  async kill() {
    await this.balancer?.close();
    await Promise.all([...this.apps, ...this.nats].map((one) => one.kill()));
    await this.postgres?.kill();
  }

  /**
   * @param {AppName} name
   * @param {number} index
   * @param {number} port of the balancer
   */
  async #app(name, index, port) {
    const { dir, secrets, env, removeWhenOrphaned } = this.#options;
    const logFile = join(dir, 'logs', `${name}-${index}.log`);
    if (existsSync(logFile)) renameSync(logFile, `${logFile}.1`);
    return new AppProcess({
      name,
      port: await freePort(),
      logFile,
      removeWhenOrphaned,
      env: {
        NODE_ENV: 'development',
        HOST: '127.0.0.1',
        NATS_URL: this.natsUrl,
        NATS_USER: name,
        NATS_PASSWORD: this.#passwords[name],
        DATABASE_URL: this.databaseUrl,
        JWT_SECRET: secrets.JWT_SECRET,
        KEY_SECRET: secrets.KEY_SECRET,
        PUBLIC_WS_URL: `ws://127.0.0.1:${port}`,
        // As k8s/base has it.
        STREAM_REPLICAS: String(SERVERS),
        STREAM_MAX_BYTES: String(1024 * MIB),
        // Until the balancer has seen that a gateway goes.
        DRAIN_DELAY: '2s',
        DRAIN_BUDGET: '2s',
        ...env,
      },
    });
  }
}
