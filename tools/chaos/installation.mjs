/** The servers of a run: NATS, PostgreSQL, the apps and two gateways, as processes on free ports. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AppProcess } from '../embedded/app.mjs';
import { startNatsServer } from '../embedded/nats.mjs';
import { startPostgresServer } from '../embedded/postgres.mjs';
import { freePort } from '../embedded/process.mjs';
import { signToken } from '../embedded/token.mjs';

export const AUDIENCE = 'chaos';
const GATEWAYS = 2;
const MIB = 1024 * 1024;

export class Installation {
  /** @type {AppProcess[]} */
  gateways = [];
  /** @type {import('../embedded/nats.mjs').NatsServer | undefined} */
  nats;
  /** @type {import('../embedded/postgres.mjs').PostgresServer | undefined} */
  #postgres;
  /** @type {AppProcess[]} */
  #others = [];
  #dir;
  #secrets = { jwt: secret(), key: secret() };
  /** Gateways that are down, or not ready yet. */
  #away = new Set();
  /** What is being restarted. @type {Map<object, Promise<unknown>>} */
  #busy = new Map();

  /** @param {string} dir for all data; made by the caller, and removed */
  constructor(dir) {
    this.#dir = dir;
  }

  async start() {
    const common = { removeWhenOrphaned: this.#dir };
    [this.nats, this.#postgres] = await Promise.all([
      startNatsServer({ ...common, dir: join(this.#dir, 'nats') }),
      startPostgresServer({ ...common, dir: join(this.#dir, 'postgres'), password: secret(), fast: true }),
    ]);
    await this.#postgres.ensureDatabase('posthorn');
    for (const name of /** @type {const} */ (['auth', 'registry', 'notifier'])) {
      this.#others.push(await this.#app(name, 0));
    }
    for (let i = 0; i < GATEWAYS; i++) this.gateways.push(await this.#app('gateway', i));
    await Promise.all([...this.#others, ...this.gateways].map((app) => app.start()));
    await this.call('POST', '/v1/audience');
  }

  /** A port that a load balancer would choose: of those that are ready. */
  get gatewayPort() {
    const ready = this.gateways.filter((gateway) => !this.#away.has(gateway));
    const among = ready.length > 0 ? ready : this.gateways;
    return /** @type {AppProcess} */ (among[Math.floor(Math.random() * among.length)]).port;
  }

  get natsUrl() {
    return this.nats?.url ?? '';
  }

  /** @param {Record<string, unknown>} claims */
  token(claims) {
    return signToken(this.#secrets.jwt, { aud: AUDIENCE, ...claims });
  }

  /**
   * A call as an admin, to whichever gateway answers, repeated until one does.
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {Record<string, string>} [claims]
   * @param {number} [patience] milliseconds
   * @returns {Promise<any>}
   */
  async call(method, path, body, claims = { sub: 'operator', role: 'admin' }, patience = 60_000) {
    const token = await this.token(claims);
    const key = secret();
    const deadline = Date.now() + patience;
    for (let i = 0; ; i++) {
      const { url } = /** @type {AppProcess} */ (this.gateways[i % GATEWAYS]);
      try {
        const response = await fetch(url + path, {
          method,
          headers: {
            Authorization: `Bearer ${token}`,
            'Idempotency-Key': key,
            ...(body && { 'Content-Type': 'application/json' }),
          },
          ...(body && { body: JSON.stringify(body) }),
          signal: AbortSignal.timeout(5_000),
        });
        const answer = await response.text();
        if (response.ok) return answer && JSON.parse(answer);
        if (response.status < 500 && response.status !== 429)
          throw new RangeError(`${method} ${path}: ${answer}`);
      } catch (error) {
        if (error instanceof RangeError || Date.now() > deadline) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /**
   * Ends a gateway, in order or as a crash would, and brings it back; one after the other.
   * @param {number} index
   * @param {'SIGTERM' | 'SIGKILL'} signal
   * @param {number} away milliseconds
   */
  restartGateway(index, signal, away) {
    const gateway = /** @type {AppProcess} */ (this.gateways[index % GATEWAYS]);
    return this.#inTurn(this.gateways, async () => {
      this.#away.add(gateway);
      await (signal === 'SIGKILL' ? gateway.kill() : gateway.stop());
      await pause(away);
      await gateway.start();
      this.#away.delete(gateway);
    });
  }

  /** @param {number} away milliseconds */
  restartNats(away) {
    const nats = /** @type {import('../embedded/nats.mjs').NatsServer} */ (this.nats);
    return this.#inTurn(nats, async () => {
      await nats.stop();
      await pause(away);
      await nats.start();
    });
  }

  /** Resolves when nothing is restarted any more, and every gateway is ready. */
  async settled() {
    await Promise.all(this.#busy.values());
    await Promise.all(this.gateways.map((gateway) => gateway.ready()));
  }

  async stop() {
    await Promise.allSettled(this.#busy.values());
    await Promise.all([...this.gateways, ...this.#others].map((app) => app.kill()));
    await Promise.all([this.nats?.kill(), this.#postgres?.kill()]);
  }

  /**
   * @param {object} process
   * @param {() => Promise<void>} action
   */
  #inTurn(process, action) {
    const turn = (this.#busy.get(process) ?? Promise.resolve()).then(action);
    this.#busy.set(process, turn);
    return turn;
  }

  /**
   * @param {import('../checkout.mjs').AppName} name
   * @param {number} index
   */
  async #app(name, index) {
    const port = await freePort();
    return new AppProcess({
      name,
      port,
      logFile: join(this.#dir, `${name}-${index}.log`),
      removeWhenOrphaned: this.#dir,
      env: {
        NODE_ENV: 'test',
        HOST: '127.0.0.1',
        NATS_URL: this.natsUrl,
        DATABASE_URL: this.#postgres?.url('posthorn') ?? '',
        JWT_SECRET: this.#secrets.jwt,
        KEY_SECRET: this.#secrets.key,
        PUBLIC_WS_URL: `ws://127.0.0.1:${port}`,
        STREAM_MAX_BYTES: String(512 * MIB),
        DRAIN_BUDGET: '2s',
      },
    });
  }
}

function secret() {
  return randomBytes(32).toString('base64url');
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
