import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type NatsConfigOptions, natsConfig } from '@posthorn/contracts';
import { type AppName, apps, buildIsFresh } from '../../../tools/checkout.mjs';
import { AppProcess } from '../../../tools/embedded/app.mjs';
import { type NatsServer, startNatsServer } from '../../../tools/embedded/nats.mjs';
import { type PostgresServer, startPostgresServer } from '../../../tools/embedded/postgres.mjs';
import { createAuthority, type TestAuthority, type TestCertificate } from './certificates.js';
import { freePort } from './free-port.js';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.js';
import { startInTempDir } from './temp-dir.js';
import { signToken, type TokenClaims } from './token.js';

const DATABASE = 'posthorn';
const MIB = 1024 * 1024;

export interface ClusterOptions {
  /** How many processes of each app; default one. Zero leaves an app out. */
  replicas?: Partial<Record<AppName, number>>;
  /** Further configuration, for all apps. */
  env?: Record<string, string>;
  /**
   * Gives NATS accounts and permissions: each app its own user, and users for these audiences and services
   * (`cluster.natsLogin(user)`).
   */
  accounts?: Omit<NatsConfigOptions, 'login'>;
  /** TLS to NATS and PostgreSQL, with certificates of `cluster.authority` on both sides. */
  tls?: boolean;
  /** Puts a link that can be cut between each process and NATS: `cluster.natsLink(process)`. */
  links?: boolean;
}

/** NATS, PostgreSQL and the four apps, as processes on free ports with data of their own. */
export class Cluster {
  /** What tokens are signed with, and keys are encrypted with. */
  readonly secrets = { jwt: secret(), key: secret() };
  readonly apps: Record<AppName, AppProcess[]> = { auth: [], registry: [], notifier: [], gateway: [] };
  nats!: NatsServer;
  postgres!: PostgresServer;
  /** Where the cluster was started with `tls`. */
  authority!: TestAuthority;
  readonly #dir: string;
  readonly #options: ClusterOptions;
  /** The password of each NATS user. */
  readonly #passwords = new Map<string, string>();
  #client: (TestCertificate & { caFile: string }) | undefined;
  readonly #links = new Map<AppProcess, TcpProxy>();

  constructor(dir: string, options: ClusterOptions) {
    this.#dir = dir;
    this.#options = options;
  }

  /** The directory of all its files, which goes with it. */
  get home(): string {
    return this.#dir;
  }

  /** Starts everything. Called by {@link startCluster}. */
  async start(): Promise<void> {
    const common = { removeWhenOrphaned: this.#dir };
    const tls = this.#options.tls ? await this.#certificates() : undefined;
    [this.nats, this.postgres] = await Promise.all([
      startNatsServer({ ...common, ...tls?.nats, dir: join(this.#dir, 'nats'), ...this.#accounts() }),
      startPostgresServer({
        ...common,
        ...tls?.postgres,
        dir: join(this.#dir, 'postgres'),
        password: secret(),
        fast: true,
      }),
    ]);
    await this.postgres.ensureDatabase(DATABASE);
    for (const name of apps) {
      for (let index = 0; index < (this.#options.replicas?.[name] ?? 1); index++) await this.#add(name);
    }
    await Promise.all(this.#processes().map((app) => app.start()));
  }

  /**
   * Starts one more process of an app, and resolves when it is ready.
   * @param env further configuration of this one
   */
  async addReplica(name: AppName, env: Record<string, string> = {}): Promise<AppProcess> {
    const app = await this.#add(name, env);
    await app.start();
    return app;
  }

  get natsUrl(): string {
    return this.nats.url;
  }

  get databaseUrl(): string {
    return this.postgres.url(DATABASE);
  }

  /** `http://127.0.0.1:<port>` of each gateway. */
  get gatewayUrls(): string[] {
    return this.apps.gateway.map((gateway) => gateway.url);
  }

  /** One process: to kill, stop, restart, freeze. */
  app(name: AppName, index = 0): AppProcess {
    const app = this.apps[name][index];
    if (!app) throw new RangeError(`This cluster has no ${name} number ${index}`);
    return app;
  }

  /** The link between a process and NATS, where the cluster was started with `links`. */
  natsLink(app: AppProcess): TcpProxy {
    const link = this.#links.get(app);
    if (!link) throw new Error('This cluster was started without links');
    return link;
  }

  /**
   * User and password for NATS: `auth`, `operator`, `service-billing`, `audience-acme`.
   * @throws RangeError for a user that the cluster was not started with
   */
  natsLogin(user: string): { user: string; password: string } {
    const password = this.#passwords.get(user);
    if (password === undefined) throw new RangeError(`This cluster has no NATS user ${user}`);
    return { user, password };
  }

  /** A JWT that the gateways accept. */
  token(claims: TokenClaims = {}): Promise<string> {
    return signToken(this.secrets.jwt, claims);
  }

  /** Ends every process as a crash would. */
  async kill(): Promise<void> {
    await Promise.all(this.#processes().map((app) => app.kill()));
    await Promise.all([...this.#links.values()].map((link) => link[Symbol.asyncDispose]()));
    await Promise.all([this.nats?.kill(), this.postgres?.kill()]);
  }

  #processes(): AppProcess[] {
    return Object.values(this.apps).flat();
  }

  /** What the servers are started with so that they demand TLS and certificates. Also makes those of the clients. */
  async #certificates() {
    this.authority = await createAuthority(this.#dir);
    const { caFile } = this.authority;
    const [nats, postgres, client] = await Promise.all(
      ['nats', 'postgres', 'client'].map((name) => this.authority.issue(name)),
    );
    this.#client = { caFile, ...client! };
    return {
      nats: { tls: { ...nats!, caFile } },
      postgres: { tls: { ...postgres!, caFile, client: client! } },
    };
  }

  /** The files that a client of NATS or PostgreSQL needs, where the cluster was started with `tls`. */
  get clientTls(): TestCertificate & { caFile: string } {
    if (!this.#client) throw new Error('This cluster was started without tls');
    return this.#client;
  }

  /** Where an app finds them. */
  #trust(): Record<string, string> {
    if (!this.#client) return {};
    const { caFile, certFile, keyFile } = this.#client;
    return {
      NATS_CA: caFile,
      NATS_CERT: certFile,
      NATS_KEY: keyFile,
      DATABASE_CA: caFile,
      DATABASE_CERT: certFile,
      DATABASE_KEY: keyFile,
    };
  }

  /** What the server is started with so that it has accounts. */
  #accounts(): { config?: string; env?: Record<string, string> } {
    if (!this.#options.accounts) return {};
    const { text, logins } = natsConfig(this.#options.accounts);
    for (const { user } of logins) this.#passwords.set(user, `p${secret()}`);
    const env = logins.map(({ user, variable }) => [variable, this.natsLogin(user).password]);
    return { config: text, env: Object.fromEntries(env) };
  }

  /** What an app logs in to NATS with. */
  #login(name: AppName): Record<string, string> {
    if (!this.#options.accounts) return {};
    const { user, password } = this.natsLogin(name);
    return { NATS_USER: user, NATS_PASSWORD: password };
  }

  async #add(name: AppName, env: Record<string, string> = {}): Promise<AppProcess> {
    const port = await freePort();
    const link = this.#options.links ? await startTcpProxy(() => this.nats.port) : undefined;
    const app = new AppProcess({
      name,
      port,
      logFile: join(this.#dir, `${name}-${this.apps[name].length}.log`),
      removeWhenOrphaned: this.#dir,
      env: {
        NODE_ENV: 'test',
        HOST: '127.0.0.1',
        NATS_URL: link ? `nats://127.0.0.1:${link.port}` : this.natsUrl,
        ...this.#login(name),
        ...this.#trust(),
        DATABASE_URL: this.databaseUrl,
        JWT_SECRET: this.secrets.jwt,
        KEY_SECRET: this.secrets.key,
        PUBLIC_WS_URL: `ws://127.0.0.1:${port}`,
        STREAM_MAX_BYTES: String(256 * MIB),
        ...this.#options.env,
        ...env,
      },
    });
    this.apps[name].push(app);
    if (link) this.#links.set(app, link);
    return app;
  }
}

/** A cluster; disposing of it ends everything and removes its data. */
export type TestCluster = Cluster & AsyncDisposable;

/**
 * Starts a cluster, and resolves when every app is ready.
 * @throws when `dist/` does not hold the sources as they are
 */
export async function startCluster(options: ClusterOptions = {}): Promise<TestCluster> {
  if (!buildIsFresh()) throw new Error('dist/ is missing or older than the sources: run npm run build');
  return startInTempDir(async (dir) => {
    const cluster = new Cluster(dir, options);
    try {
      await cluster.start();
      return cluster;
    } catch (error) {
      await cluster.kill();
      throw error;
    }
  });
}

function secret(): string {
  return randomBytes(32).toString('base64url');
}
