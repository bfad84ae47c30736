/** Posthorn as it is installed: NATS, PostgreSQL and the four apps from `dist/`, with limits out of the way. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { AppProcess } from '../../tools/embedded/app.mjs';
import { startNatsServer } from '../../tools/embedded/nats.mjs';
import { startPostgresServer } from '../../tools/embedded/postgres.mjs';
import { freePort } from '../../tools/embedded/process.mjs';
import { signToken } from '../../tools/embedded/token.mjs';

/** The tenant of all runs. */
export const AUDIENCE = 'bench';
const MILLION = '1000000';
const MILLION_MILLIONS = '1000000000000';

/** What a load test would otherwise measure: how well the limits hold. */
const RAISED_LIMITS = {
  PUBLISH_RATE: MILLION,
  PUBLISH_BURST: MILLION,
  SUBSCRIPTION_LIMIT: MILLION,
  CONNECTION_LIMIT: MILLION,
  POLL_RATE: MILLION,
  PUBLISHES_PER_DAY: MILLION_MILLIONS,
  STORED_BYTES_PER_DAY: MILLION_MILLIONS,
};

/**
 * @param {import('../contender.mjs').Place} place
 * @typedef {object} Options
 * @property {number} [gateways]
 * @property {boolean} [synced] whether PostgreSQL writes as in production; by default it does not wait for the disk
 * @property {import('../../tools/checkout.mjs').AppName} [profiled] of which profiles are taken: the gateways
 */

/**
 * @param {import('../contender.mjs').Place} place
 * @param {Options} [options]
 */
export async function startPosthorn(place, options = {}) {
  const posthorn = new Posthorn(place, options);
  try {
    await posthorn.start();
    return posthorn;
  } catch (error) {
    await posthorn.stop();
    throw error;
  }
}

export class Posthorn {
  /** @type {AppProcess[]} */
  gateways = [];
  /** @type {import('../../tools/embedded/nats.mjs').NatsServer | undefined} */
  nats;
  /** @type {import('../../tools/embedded/postgres.mjs').PostgresServer | undefined} */
  #postgres;
  /** @type {AppProcess[]} */
  #others = [];
  #place;
  #options;
  #secrets = { jwt: secret(), key: secret() };

  /**
   * @param {import('../contender.mjs').Place} place
   * @param {Options} options
   */
  constructor(place, options) {
    this.#place = place;
    this.#options = options;
  }

  async start() {
    const { dir } = this.#place;
    const { gateways = 1, synced = false } = this.#options;
    const common = { removeWhenOrphaned: dir };
    [this.nats, this.#postgres] = await Promise.all([
      startNatsServer({ ...common, dir: join(dir, 'nats') }),
      startPostgresServer({ ...common, dir: join(dir, 'postgres'), password: secret(), fast: !synced }),
    ]);
    await this.#postgres.ensureDatabase('posthorn');
    for (const name of /** @type {const} */ (['auth', 'registry', 'notifier']))
      this.#others.push(await this.#app(name));
    for (let index = 0; index < gateways; index++) this.gateways.push(await this.#app('gateway', index));
    await Promise.all([...this.#others, ...this.gateways].map((app) => app.start()));
    await this.call('POST', '/v1/audience');
  }

  get pids() {
    const [gateway] = this.gateways;
    return { gateway: gateway?.pid ?? 0, nats: this.nats?.pid ?? 0 };
  }

  get helperPids() {
    return [...this.#others, ...this.gateways.slice(1), this.#postgres].map((process) => process?.pid ?? 0);
  }

  /** @param {import('../../tools/checkout.mjs').AppName} name */
  app(name) {
    const app = [...this.gateways, ...this.#others].find((one) => one.name === name);
    if (!app) throw new RangeError(`There is no ${name}`);
    return app;
  }

  get postgres() {
    if (!this.#postgres) throw new Error('PostgreSQL was not started');
    return this.#postgres;
  }

  get audience() {
    return AUDIENCE;
  }

  /** @param {string} sub */
  token(sub, role = 'user') {
    return signToken(this.#secrets.jwt, { aud: AUDIENCE, sub, role });
  }

  /**
   * A metric of all gateways together.
   * @param {string} metric
   */
  async sum(metric) {
    let sum = 0;
    for (const { url } of this.gateways) {
      const text = await (await fetch(`${url}/metrics`)).text();
      sum += Number(new RegExp(`^${metric}\\{[^}]*\\} (\\d+)`, 'm').exec(text)?.[1]);
    }
    return sum;
  }

  /**
   * Resolves once a gauge has come to a value.
   * @param {string} metric
   * @param {number} value
   */
  async reaches(metric, value) {
    while ((await this.sum(metric)) !== value) await sleep(100);
  }

  /** @returns {Promise<import('../connection.mjs').Target>} good for a minute */
  async target(index = 0, sub = 'bench') {
    const { key } = await this.call('GET', '/v1/sign', { index, sub });
    return { dialect: 'courier', port: this.gateways[index]?.port ?? 0, path: `/ws?token=${key}` };
  }

  /** NATS itself, for a client that leaves the gateway out. @returns {import('../connection.mjs').Target} */
  natsTarget() {
    return { dialect: 'nats', port: this.nats?.port ?? 0, path: '' };
  }

  /** How many events the stream holds. */
  async storedEvents() {
    const connection = await connect({ servers: this.nats?.url });
    try {
      const { state } = await (await jetstreamManager(connection)).streams.info('PH_GLOBAL');
      return state.messages;
    } finally {
      await connection.close();
    }
  }

  /**
   * @param {string} topic
   * @param {object} message
   * @param {string} [role]
   */
  async publish(topic, message, role = 'user') {
    await this.call('POST', '/v1/hook', { body: { topic, action: 'publish', message }, role });
  }

  /** Begins or ends a CPU profile of the profiled app, where profiles are wanted. */
  profile() {
    if (!this.#place.profiles) return;
    for (const { alive, pid } of this.#profiled) if (alive && pid) process.kill(pid, 'SIGUSR2');
  }

  get #profiled() {
    const { profiled = 'gateway' } = this.#options;
    return [...this.gateways, ...this.#others].filter(({ name }) => name === profiled);
  }

  async stop() {
    // A profile is written when the process ends in order.
    if (this.#place.profiles) await Promise.all(this.#profiled.map((app) => app.stop()));
    await Promise.all([...this.gateways, ...this.#others].map((app) => app.kill()));
    await Promise.all([this.nats?.kill(), this.#postgres?.kill()]);
  }

  /**
   * @param {import('../../tools/checkout.mjs').AppName} name
   * @param {number} [index]
   */
  async #app(name, index = 0) {
    const { dir, profiles } = this.#place;
    const { profiled = 'gateway' } = this.#options;
    const port = await freePort();
    return new AppProcess({
      name,
      port,
      logFile: join(dir, `${name}-${index}.log`),
      removeWhenOrphaned: dir,
      env: {
        NODE_ENV: 'production',
        HOST: '127.0.0.1',
        NATS_URL: this.nats?.url,
        DATABASE_URL: this.#postgres?.url('posthorn'),
        JWT_SECRET: this.#secrets.jwt,
        KEY_SECRET: this.#secrets.key,
        PUBLIC_WS_URL: `ws://127.0.0.1:${port}`,
        DRAIN_BUDGET: '1s',
        STREAM_MAX_BYTES: String(1024 ** 3),
        ...RAISED_LIMITS,
        ...(profiles && name === profiled && { NODE_OPTIONS: `--import=${profiler(profiles)}` }),
      },
    });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{ index?: number, body?: object, role?: string, sub?: string }} [options] index: of the gateway
   * @returns {Promise<any>}
   */
  async call(method, path, { index = 0, body, role = 'user', sub = 'bench' } = {}) {
    const token = await this.token(sub, role);
    const response = await fetch(`${this.gateways[index]?.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`);
    return JSON.parse(text);
  }
}

/** @param {string} directory where profiles go */
function profiler(directory) {
  const preload = new URL('../profile.mjs', import.meta.url);
  preload.searchParams.set('into', directory);
  return preload.href;
}

function secret() {
  return randomBytes(32).toString('base64url');
}
