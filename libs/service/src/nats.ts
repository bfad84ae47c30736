import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { connect as connectTls } from 'node:tls';
import {
  connect,
  credsAuthenticator,
  errors,
  type NatsConnection,
  type NodeConnectionOptions,
  nkeyAuthenticator,
  nkeys,
} from '@nats-io/transport-node';
import { type NatsTls, natsTlsOptions } from '@posthorn/bus/platform';
import { appInbox } from '@posthorn/contracts';
import { type Service, waitFor } from './bootstrap.js';
import type { ConfigFinding, ConfigRule } from './config.js';
import type { Health } from './health.js';
import { type Logger, onceUntil } from './logger.js';
import { NatsMetrics } from './nats-metrics.js';
import { certificateFindings, tlsRefusal } from './tls.js';

/** Who we are to NATS, when the URL does not say it. */
export interface NatsIdentity {
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  /** The seed of a user's nkey. */
  readonly nkeySeed?: string | undefined;
  /** Path of a credentials file; read anew at each connection, so that it can be rotated. */
  readonly credsFile?: string | undefined;
}

/** What a process needs in order to connect. */
export interface NatsSettings extends NatsIdentity {
  /** One or more `nats://` or `tls://` URLs of one cluster, separated by commas. */
  readonly url: string;
  /** The name that the servers' monitoring shows, for example `gateway-7f9c`. */
  readonly name: string;
  /** Prefix of reply subjects, so that an app's permissions can be limited to its own. */
  readonly inboxPrefix?: string;
  /** Demands TLS. Not given: only a `tls://` URL does. */
  readonly tls?: NatsTls | undefined;
}

/** Where a connection reports to. */
export interface NatsContext {
  readonly logger: Logger;
  readonly health: Health;
  readonly metrics?: NatsMetrics;
  /** Ends the waiting for the first connection. */
  readonly signal?: AbortSignal;
}

/** A connection that stays: it reconnects for as long as the process lives. */
export interface NatsLink {
  readonly connection: NatsConnection;
  /** The prefix of its reply subjects, when it is not NATS's own. */
  readonly inboxPrefix: string | undefined;
  /** Whether the servers can be reached now. While they cannot, nats.js drops what is published. */
  isConnected(): boolean;
  /** Calls `listener` at each loss (`false`) and return (`true`). Returns the way to stop it. */
  watch(listener: (connected: boolean) => void): () => void;
  /** Sends what is buffered, ends all subscriptions, and closes. */
  close(): Promise<void>;
}

/** The part of an app's configuration that says how it reaches NATS. */
export interface NatsConfig {
  readonly natsUrl: string;
  readonly natsUser: string | undefined;
  readonly natsPassword: string | undefined;
  readonly natsNkeySeed: string | undefined;
  readonly natsCreds: string | undefined;
  readonly natsCa: string | undefined;
  readonly natsCert: string | undefined;
  readonly natsKey: string | undefined;
}

/** Where NATS is, who we are there, and whom we trust, as an app's configuration says. */
export function natsSettings(config: NatsConfig): Omit<NatsSettings, 'name'> {
  const { natsUrl: url, natsCa: caFile, natsCert: certFile, natsKey: keyFile } = config;
  const { natsUser: user, natsPassword: password, natsNkeySeed: nkeySeed, natsCreds: credsFile } = config;
  const tls = caFile || certFile ? { caFile, certFile, keyFile } : undefined;
  return { url, user, password, nkeySeed, credsFile, tls };
}

/** A rule of every app's configuration: one way to log in to NATS, and that whole. */
export const natsLogin: ConfigRule<NatsConfig> = ({ natsUrl, natsNkeySeed }, given) => {
  const findings: ConfigFinding[] = [];
  const ways = [
    natsUrl && urlsOf(natsUrl).some(({ username }) => username) && 'the login in NATS_URL',
    given('natsUser') && 'NATS_USER',
    given('natsNkeySeed') && 'NATS_NKEY_SEED',
    given('natsCreds') && 'NATS_CREDS',
  ].filter((way) => typeof way === 'string' && way !== '');
  if (ways.length > 1) {
    findings.push({
      name: ways.join(' and '),
      got: `${ways.length} ways to log in to NATS`,
      wants: 'one of them',
    });
  }
  if (natsUrl && !urlsOf(natsUrl).every(({ username, password }) => isDecodable(username + password))) {
    findings.push({
      name: 'NATS_URL',
      got: 'a % in its login that encodes nothing (not shown)',
      wants: 'user and password percent-encoded: %25 for %',
    });
  }
  if (given('natsUser') !== given('natsPassword')) {
    const missing = given('natsUser') ? 'NATS_PASSWORD' : 'NATS_USER';
    findings.push({
      name: missing,
      got: 'nothing',
      wants: 'a value: NATS_USER and NATS_PASSWORD go together',
    });
  }
  if (natsNkeySeed !== undefined && !isUserSeed(natsNkeySeed)) {
    findings.push({ name: 'NATS_NKEY_SEED', got: 'a value (not shown)', wants: 'the seed of a user, SU…' });
  }
  return findings;
};

/** A rule of every app's configuration: our certificate for NATS and its key. */
export const natsTls: ConfigRule<NatsConfig> = (config, given) =>
  certificateFindings(
    { name: 'NATS_CERT', file: config.natsCert, given: given('natsCert') },
    { name: 'NATS_KEY', file: config.natsKey, given: given('natsKey') },
  );

function urlsOf(servers: string): URL[] {
  return servers.split(',').map((one) => new URL(one.trim()));
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

function isUserSeed(seed: string): boolean {
  try {
    return nkeys.fromSeed(new TextEncoder().encode(seed)).getPublicKey().startsWith('U');
  } catch {
    return false;
  }
}

/** The one connection of a service, {@link connectNats}: named after it, and closed by its shutdown. */
export async function openNats(service: Service, config: NatsConfig): Promise<NatsLink> {
  const { app, instance, logger, health, metrics, shutdown } = service;
  const nats = await connectNats({
    ...natsSettings(config),
    name: `${app}-${instance}`,
    inboxPrefix: appInbox(app),
    logger,
    health,
    metrics: new NatsMetrics(metrics),
    signal: shutdown.signal,
  });
  shutdown.on('close', 'nats', () => nats.close());
  return nats;
}

/**
 * Connects to NATS, waiting for it if need be, and keeps the health check `nats` up to date. Losing and
 * regaining the servers is logged once each; credentials never are.
 *
 * @throws {StartError} when TLS does not come about, which waiting does not cure
 */
export async function connectNats({
  logger,
  health,
  metrics,
  signal,
  ...settings
}: NatsSettings & NatsContext): Promise<NatsLink> {
  const connection = await waitFor('nats', () => connectOnce(settings), { logger, health, signal });
  // Servers that did not answer the first time were taken out of the pool: they may be the ones to fail over to.
  const known = connection.getServers().map(({ listen }) => listen);
  connection.setServers([...new Set([...known, ...natsOptions(settings).servers.map(withoutScheme)])]);
  const link = follow(connection, settings.inboxPrefix, { logger, health, metrics });
  metrics?.follow(connection, () => link.isConnected());
  return link;
}

/**
 * One try. The connection stays, as that of {@link connectNats}.
 * @throws {StartError} when TLS does not come about
 */
export async function connectOnce(settings: NatsSettings): Promise<NatsConnection> {
  const options = natsOptions(settings);
  try {
    return await connect(options);
  } catch (error) {
    const cause = error instanceof errors.TimeoutError ? await handshakeError(options) : undefined;
    throw refusalOf(cause ?? error, settings) ?? error;
  }
}

function refusalOf(error: unknown, { url, tls }: NatsSettings) {
  return tlsRefusal(error, {
    server: `NATS at ${urlsOf(url)
      .map(({ host }) => host)
      .join(', ')}`,
    demandedBy: 'tls:// in NATS_URL, NATS_CA and NATS_CERT demand it',
    ca: { name: 'NATS_CA', file: tls?.caFile },
    cert: { name: 'NATS_CERT', file: tls?.certFile },
  });
}

/**
 * Why a server ends TLS connections of ours, if it does: it wants another certificate. With TLS 1.3 it says so after the
 * handshake, which nats.js 3.4 does not hear: to it the server only is slow. So this asks once more, by hand.
 */
async function handshakeError({ servers, tls }: ReturnType<typeof natsOptions>): Promise<Error | undefined> {
  if (!tls) return undefined;
  const { caFile, certFile, keyFile, ...identity } = tls as NatsTls;
  for (const server of servers) {
    const { hostname: host, port } = new URL(server);
    const signal = AbortSignal.timeout(2_000);
    const plain = createConnection({ host, port: Number(port || 4222) });
    try {
      await once(plain, 'data', { signal });
      const socket = connectTls({
        ...identity,
        socket: plain,
        host,
        ...(caFile && { ca: readFileSync(caFile) }),
        ...(certFile && keyFile && { cert: readFileSync(certFile), key: readFileSync(keyFile) }),
      });
      socket.write('CONNECT {}\r\nPING\r\n');
      await once(socket, 'data', { signal });
    } catch (error) {
      if ((error as Error).name !== 'AbortError') return error as Error;
    } finally {
      plain.destroy();
    }
  }
  return undefined;
}

/**
 * The options of every connection that a process opens. Not `waitOnFirstConnect`: it hides why the first
 * connection fails, a wrong password included, and cannot be ended; {@link waitFor} does both.
 */
export function natsOptions(settings: NatsSettings) {
  const { url, name, inboxPrefix, user, password, nkeySeed, credsFile, tls } = settings;
  const urls = urlsOf(url);
  const { username, password: secret } = urls.find((one) => one.username) ?? { username: '', password: '' };
  const inUrl = secret
    ? { user: decodeURIComponent(username), pass: decodeURIComponent(secret) }
    : { token: decodeURIComponent(username) };
  const servers = urls.map((one) => `${one.protocol}//${one.host}`);
  return {
    servers,
    name,
    ...(inboxPrefix ? { inboxPrefix } : {}),
    ...(username ? inUrl : {}),
    ...(user ? { user, pass: password ?? '' } : {}),
    ...(nkeySeed ? { authenticator: nkeyAuthenticator(new TextEncoder().encode(nkeySeed)) } : {}),
    ...(credsFile ? { authenticator: credsAuthenticator(() => readFileSync(credsFile)) } : {}),
    ...natsTlsOptions(servers, tls),
    timeout: 5_000,
    // A peer that vanished without closing is noticed after two unanswered pings; the default is minutes.
    pingInterval: 10_000,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 250,
    reconnectJitter: 250,
    reconnectJitterTLS: 250,
    // Credentials may be rotated on the servers first: two refusals in a row are no reason to give up for good.
    ignoreAuthErrorAbort: true,
    // Otherwise each request, and so each publish, captures two stacks ahead of an error: a third of its cost.
    noAsyncTraces: true,
  } satisfies NodeConnectionOptions;
}

function withoutScheme(server: string): string {
  return server.replace(/^\w+:\/\//, '');
}

function follow(
  connection: NatsConnection,
  inboxPrefix: string | undefined,
  { logger, health, metrics }: Pick<NatsContext, 'logger' | 'health'> & { metrics: NatsMetrics | undefined },
): NatsLink {
  const listeners = new Set<(connected: boolean) => void>();
  const lost = onceUntil(logger, { begins: 'NATS connection lost', ends: 'NATS connection is back' });
  let connected = true;
  let closing = false;

  const turn = (now: boolean, detail?: string) => {
    if (connected === now) return;
    connected = now;
    health.set('nats', now, detail);
    for (const listener of [...listeners]) listener(now);
  };

  const watchStatus = async () => {
    for await (const status of connection.status()) {
      switch (status.type) {
        case 'disconnect':
          if (!closing) {
            lost.begin({ server: status.server });
            metrics?.lost.inc();
          }
          turn(false, 'disconnected');
          break;
        case 'reconnect':
          lost.end({ server: status.server });
          metrics?.reconnects.inc();
          turn(true);
          break;
        case 'error':
          logger.error({ err: status.error }, 'NATS reported an error');
          metrics?.errors.inc();
          break;
        case 'slowConsumer':
          metrics?.slow.inc();
          logger.warn({ pending: status.pending }, 'NATS subscription is falling behind');
          break;
        case 'ldm':
          logger.info({ server: status.server }, 'NATS server is about to shut down');
          break;
      }
    }
  };
  watchStatus().catch((err: unknown) => logger.error({ err }, 'NATS status ended'));

  connection
    .closed()
    .then((err) => {
      turn(false, 'closed');
      if (!closing) logger.error({ err }, 'NATS connection closed for good');
    })
    .catch((err: unknown) => logger.error({ err }, 'NATS connection ended'));

  return {
    connection,
    inboxPrefix,
    isConnected: () => connected,
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async close() {
      if (closing || connection.isClosed()) return;
      closing = true;
      // Draining asks the server for a pong: without a server it would wait for the next one.
      await (connected ? connection.drain() : connection.close());
    },
  };
}
