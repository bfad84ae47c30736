import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { SignJWT } from 'jose';
import { type AppName, apps, buildIsFresh } from '../../../tools/checkout.mjs';
import { AppProcess } from '../../../tools/embedded/app.mjs';
import { type NatsServer, startNatsServer } from '../../../tools/embedded/nats.mjs';
import { type PostgresServer, startPostgresServer } from '../../../tools/embedded/postgres.mjs';
import { freePort } from './free-port.js';
import { startTcpProxy, TcpProxy } from './tcp-proxy.js';
import { tempDir } from './temp-dir.js';

const DATABASE = 'posthorn';
const MIB = 1024 * 1024;

export interface ClusterOptions {
  /** How many processes of each app; default one. Zero leaves an app out. */
  replicas?: Partial<Record<AppName, number>>;
  /** Further configuration, for all apps. */
  env?: Record<string, string>;
  /** Puts a link that can be cut between each process and NATS: `cluster.natsLink(process)`. */
  links?: boolean;
}

/** Claims of a token; those not given are audience `demo`, role `user`, subject `alice`, valid for an hour. */
export interface TokenClaims {
  aud?: string;
  sub?: string;
  role?: string;
  /** Seconds since 1970; null: no such claim. */
  exp?: number | null;
  [claim: string]: unknown;
}

/** NATS, PostgreSQL and the four apps, as processes on free ports with data of their own. */
export class Cluster implements AsyncDisposable {
  readonly #links: Map<AppProcess, TcpProxy>;
  readonly #dispose: () => Promise<void>;

  constructor(
    readonly nats: NatsServer,
    readonly postgres: PostgresServer,
    readonly apps: Readonly<Record<AppName, readonly AppProcess[]>>,
    readonly secrets: { readonly jwt: string; readonly key: string },
    links: Map<AppProcess, TcpProxy>,
    dispose: () => Promise<void>,
  ) {
    this.#links = links;
    this.#dispose = dispose;
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

  /** The first gateway's URL. */
  get gatewayUrl(): string {
    return this.app('gateway').url;
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

  /** A JWT that the gateways accept. */
  token(claims: TokenClaims = {}): Promise<string> {
    return signToken(this.secrets.jwt, claims);
  }

  /** Ends everything and removes its data. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#dispose();
  }
}

/**
 * Starts a cluster, and resolves when every app is ready.
 * @throws when `dist/` does not hold the sources as they are
 */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  if (!buildIsFresh()) throw new Error('dist/ is missing or older than the sources: run npm run build');
  const dir = await tempDir();
  const opened: { kill(): Promise<void> }[] = [];
  const links = new Map<AppProcess, TcpProxy>();
  const dispose = async (): Promise<void> => {
    await Promise.all(opened.map((server) => server.kill()));
    await Promise.all([...links.values()].map((link) => link[Symbol.asyncDispose]()));
    await dir[Symbol.asyncDispose]();
  };
  try {
    return await open(options, dir.path, { opened, links, dispose });
  } catch (error) {
    await dispose();
    throw error;
  }
}

interface Opened {
  opened: { kill(): Promise<void> }[];
  links: Map<AppProcess, TcpProxy>;
  dispose: () => Promise<void>;
}

async function open(
  options: ClusterOptions,
  dir: string,
  { opened, links, dispose }: Opened,
): Promise<Cluster> {
  const [nats, postgres] = await Promise.all([
    startNatsServer({ dir: join(dir, 'nats'), removeWhenOrphaned: dir }),
    startPostgresServer({
      dir: join(dir, 'postgres'),
      password: secret(),
      fast: true,
      removeWhenOrphaned: dir,
    }),
  ]);
  opened.push(nats, postgres);
  const secrets = { jwt: secret(), key: secret() };
  const configuration = {
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    DATABASE_URL: await postgres.ensureDatabase(DATABASE),
    JWT_SECRET: secrets.jwt,
    KEY_SECRET: secrets.key,
    LOG_LEVEL: 'info',
    STREAM_MAX_BYTES: String(256 * MIB),
    ...options.env,
  };

  const startApp = async (name: AppName, index: number): Promise<AppProcess> => {
    const port = await freePort();
    const link = options.links ? await startTcpProxy(nats.port) : undefined;
    const app = new AppProcess({
      name,
      port,
      logFile: join(dir, `${name}-${index}.log`),
      removeWhenOrphaned: dir,
      env: {
        NATS_URL: link ? `nats://127.0.0.1:${link.port}` : nats.url,
        PUBLIC_WS_URL: `ws://127.0.0.1:${port}`,
        ...configuration,
      },
    });
    opened.push(app);
    if (link) links.set(app, link);
    await app.start();
    return app;
  };
  const startAll = (name: AppName): Promise<AppProcess[]> =>
    Promise.all(Array.from({ length: options.replicas?.[name] ?? 1 }, (_, index) => startApp(name, index)));

  const started = await Promise.all(apps.map(async (name) => [name, await startAll(name)] as const));
  const processes = Object.fromEntries(started) as Record<AppName, AppProcess[]>;
  return new Cluster(nats, postgres, processes, secrets, links, dispose);
}

/** Signs a token as an identity provider with the shared secret would. */
export async function signToken(jwtSecret: string, claims: TokenClaims = {}): Promise<string> {
  const { exp = Math.floor(Date.now() / 1000) + 3600, ...rest } = claims;
  const payload = { aud: 'demo', sub: 'alice', role: 'user', ...rest, ...(exp !== null && { exp }) };
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(jwtSecret));
}

function secret(): string {
  return randomBytes(32).toString('base64url');
}
