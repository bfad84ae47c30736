import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { apps } from './checkout.mjs';
import { AppProcess } from './embedded/app.mjs';
import { startNatsServer } from './embedded/nats.mjs';
import { startPostgresServer } from './embedded/postgres.mjs';
import { assertPortFree, freePort, PortInUseError } from './embedded/process.mjs';
import { keptSecrets, portOf } from './home.mjs';
import { supervise } from './supervise.mjs';

const GIB = 1024 ** 3;

/** Configuration that all apps of a stack have in common, unless the environment says otherwise. */
export const STACK_DEFAULTS = {
  NODE_ENV: 'development',
  // Whoever presses Ctrl-C is waiting.
  DRAIN_BUDGET: '2s',
  STREAM_MAX_BYTES: String(GIB),
};

/**
 * @typedef {import('./checkout.mjs').AppName} AppName
 * @typedef {import('./embedded/nats.mjs').NatsServer} NatsServer
 * @typedef {import('./embedded/postgres.mjs').PostgresServer} PostgresServer
 */

/**
 * @typedef {object} StackOptions
 * @property {string} home where data, secrets and logs are
 * @property {NodeJS.ProcessEnv} env configuration; what it gives goes to the apps and replaces what is made here
 * @property {(notice: string) => void} notice told when something ended by itself and is brought back
 */

/** A whole installation on this machine: NATS, PostgreSQL and the four apps, kept running until `stop()`. */
export class Stack {
  /** @type {NatsServer | undefined} */
  nats;
  /** @type {PostgresServer | undefined} */
  postgres;
  /** @type {AppProcess[]} */
  #apps = [];
  /** @type {StackOptions} */
  #options;
  #stopping = false;

  /** @param {StackOptions} options */
  constructor(options) {
    this.#options = options;
    const { home, env } = options;
    // The database's user walks through; the files inside are closed one by one.
    mkdirSync(join(home, 'logs'), { recursive: true, mode: 0o700 });
    chmodSync(home, 0o711);
    this.port = portOf(env, 'PORT', 8080);
    this.url = `http://127.0.0.1:${this.port}`;
    const kept = keptSecrets(join(home, 'secrets.json'), () => {
      const secret = () => randomBytes(32).toString('base64url');
      return { jwt: secret(), key: secret(), database: secret() };
    });
    this.secrets = {
      jwt: env.JWT_SECRET || kept.jwt,
      key: env.KEY_SECRET || kept.key,
      database: kept.database,
    };
  }

  /** Whether the gateway serves its demo page; the environment may say so. */
  get demo() {
    const { DEMO, NODE_ENV } = this.#options.env;
    return DEMO ? /^(true|1|yes|on)$/i.test(DEMO) : NODE_ENV !== 'production';
  }

  get natsUrl() {
    return this.#options.env.NATS_URL || this.nats?.url || '';
  }

  get databaseUrl() {
    return this.#options.env.DATABASE_URL || this.postgres?.url('posthorn') || '';
  }

  /** Fails early: a taken port is cheaper to hear of before anything runs. */
  async checkPort() {
    await assertPortFree(this.port, 'PORT', 'the gateway', this.#options.env.HOST);
  }

  async startNats() {
    const { home, env } = this.#options;
    this.nats = await startNatsServer({ dir: join(home, 'nats'), port: portOf(env, 'NATS_PORT', 4222) });
    void this.#supervise('NATS', this.nats);
  }

  async startPostgres() {
    const { home, env } = this.#options;
    this.postgres = await startPostgresServer({
      dir: join(home, 'postgres'),
      port: portOf(env, 'DATABASE_PORT', 5432),
      password: this.secrets.database,
    });
    void this.#supervise('PostgreSQL', this.postgres);
    await this.postgres.ensureDatabase('posthorn');
  }

  /**
   * Starts the four apps together, and resolves when all are ready.
   * @param {(app: AppProcess) => void} [onReady]
   */
  async startApps(onReady = () => {}) {
    for (const name of apps) this.#apps.push(await this.#app(name));
    await Promise.all(
      this.#apps.map(async (app) => {
        await app.start();
        void this.#supervise(app.name, app);
        onReady(app);
      }),
    );
  }

  /**
   * Ends everything: the public door first, the data last.
   * @param {(name: string, stop: () => Promise<void>) => Promise<void>} [each]
   */
  async stop(each = (_, stop) => stop()) {
    this.#stopping = true;
    for (const app of this.#apps.toReversed()) if (app.alive) await each(app.name, () => app.stop());
    const { nats, postgres } = this;
    if (postgres) await each('PostgreSQL', () => postgres.stop());
    if (nats) await each('NATS', () => nats.stop());
  }

  /** @param {AppName} name */
  async #app(name) {
    const { home, env } = this.#options;
    const logFile = join(home, 'logs', `${name}.log`);
    if (existsSync(logFile)) renameSync(logFile, `${logFile}.1`);
    const gateway = name === 'gateway';
    return new AppProcess({
      name,
      logFile,
      port: gateway ? this.port : await internalPort(this.port + 1 + apps.indexOf(name)),
      env: {
        ...STACK_DEFAULTS,
        PUBLIC_WS_URL: `ws://127.0.0.1:${this.port}`,
        ...(this.demo && { DEMO: '1' }),
        ...env,
        HOST: (gateway && env.HOST) || '127.0.0.1',
        NATS_URL: this.natsUrl,
        DATABASE_URL: this.databaseUrl,
        JWT_SECRET: this.secrets.jwt,
        KEY_SECRET: this.secrets.key,
      },
    });
  }

  /**
   * @param {string} name
   * @param {import('./supervise.mjs').Supervised} supervised
   */
  #supervise(name, supervised) {
    return supervise(name, supervised, { wanted: () => !this.#stopping, notice: this.#options.notice });
  }
}

/**
 * Nobody needs to know an internal app's port, so another will do when this one is taken.
 * @param {number} wanted
 */
async function internalPort(wanted) {
  try {
    await assertPortFree(wanted, 'PORT', 'an app');
    return wanted;
  } catch (error) {
    if (error instanceof PortInUseError) return freePort();
    throw error;
  }
}
