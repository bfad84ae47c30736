/** The NATS server that a connection is on, as far as it says it itself. */
import { isIP } from 'node:net';
import { type JetStreamAccountStats, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection, ServerInfo } from '@nats-io/transport-node';
import type { NatsConfig } from '../nats.js';
import { type Finding, finding, ok, reasonOf } from './finding.js';
import { isLoopback, passwordFindings, passwordIn } from './secrets.js';

/** The oldest that the apps are tested with; and the one that is wanted in production. */
const OLDEST = '2.9';
const RECOMMENDED = '2.12';

/** Whether a version such as `2.9.10` is at least `2.9`. */
export function atLeastVersion(version: string, least: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = least.split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** What a server said when it was connected to: version, login, encryption. Costs no question. */
export function natsFindings(
  info: ServerInfo | undefined,
  { natsUrl, natsCa, natsCert }: Pick<NatsConfig, 'natsUrl' | 'natsCa' | 'natsCert'>,
  production: boolean,
): Finding[] {
  if (!info) return [];
  const hosts = natsUrl.split(',').map((url) => new URL(url.trim()).hostname);
  const local = hosts.every(isLoopback);
  return [
    versionFinding(info.version, production),
    loginFinding(info, local, production),
    tlsFinding(Boolean(info.tls_required || natsUrl.includes('tls://') || natsCa || natsCert), local),
  ];
}

export function versionFinding(version: string, production: boolean): Finding {
  const found = `NATS ${version}`;
  if (!atLeastVersion(version, OLDEST))
    return finding(
      'nats.version',
      'failure',
      found,
      `Use ${RECOMMENDED} or later. Nothing before ${OLDEST} was tried.`,
    );
  if (!production || atLeastVersion(version, RECOMMENDED)) return ok('nats.version', found);
  return finding(
    'nats.version',
    'warning',
    `${found}, and ${RECOMMENDED} or later is wanted in production`,
    'Upgrade one server of the cluster after the other; nothing has to be changed for it.',
  );
}

function loginFinding(info: ServerInfo, local: boolean, production: boolean): Finding {
  if (info.auth_required) return ok('nats.login', 'NATS asks for a login');
  if (!production) return ok('nats.login', 'NATS asks for no login, which is for development');
  return finding(
    'nats.login',
    local ? 'warning' : 'failure',
    `NATS asks for no login${local ? ', on this machine' : ''}`,
    'Give the servers accounts and users (npm run nats-config; docs/security.md, "NATS accounts"), and the apps NATS_USER and NATS_PASSWORD.',
  );
}

function tlsFinding(encrypted: boolean, local: boolean): Finding {
  if (encrypted) return ok('nats.tls', 'encrypted');
  if (local) return ok('nats.tls', 'not encrypted, on this machine');
  return finding(
    'nats.tls',
    'warning',
    'the connection to NATS is not encrypted',
    'Give the servers certificates, and the apps a tls:// URL or NATS_CA, unless the network itself encrypts (a mesh, WireGuard).',
  );
}

/** The passwords of an app's logins. */
export function loginFindings({
  natsUrl,
  natsPassword,
  databaseUrl,
}: Pick<NatsConfig, 'natsUrl' | 'natsPassword'> & { readonly databaseUrl?: string }): Finding[] {
  return passwordFindings({
    NATS_PASSWORD: natsPassword,
    NATS_URL: passwordIn(natsUrl),
    DATABASE_URL: passwordIn(databaseUrl),
  });
}

/** How an app cannot connect, and what helps. */
export function unreachable(error: unknown, { natsUrl }: Pick<NatsConfig, 'natsUrl'>): Finding {
  const servers = natsUrl.split(',').map((url) => new URL(url.trim()).host);
  const reason = reasonOf(error);
  const refused = /auth|permission|user/i.test(reason);
  return finding(
    'nats.reachable',
    'failure',
    `${servers.join(', ')}: ${reason.replace(/\.$/, '')}`,
    refused
      ? "Compare NATS_USER and NATS_PASSWORD (or NATS_NKEY_SEED, NATS_CREDS) with the servers' users: accounts.conf and its variables."
      : `Start NATS, or set NATS_URL to where it is${servers.some((host) => isIP(new URL(`nats://${host}`).hostname) === 0) ? '; the name has to resolve here, and no network policy may be in between' : ''}.`,
  );
}

/** JetStream for the account of this connection. Undefined stats where it is not there. */
export async function jetStreamFindings(
  nc: NatsConnection,
): Promise<{ findings: Finding[]; stats: JetStreamAccountStats | undefined }> {
  try {
    const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: 3_000 });
    const stats = await jsm.getAccountInfo();
    return {
      stats,
      findings: [
        ok(
          'jetstream.available',
          `JetStream, ${stats.streams} streams and buckets, ${bytesText(stats.storage)} stored`,
        ),
      ],
    };
  } catch (error) {
    const found = finding(
      'jetstream.available',
      'failure',
      `JetStream does not answer: ${reasonOf(error)}`,
      'Enable jetstream on the servers and for the account; in a cluster, see that more than half of the servers are up (nats server report jetstream).',
    );
    return { stats: undefined, findings: [found] };
  }
}

/** Servers that the one we are on knows of, itself included. */
export function serversKnown(info: ServerInfo | undefined): number {
  return Math.max(1, new Set(info?.connect_urls ?? []).size);
}

/** Copies of streams and buckets against the servers that are there. */
export function replicasFinding(
  info: ServerInfo | undefined,
  replicas: number,
  production: boolean,
): Finding {
  const clustered = info?.cluster !== undefined;
  const servers = clustered ? serversKnown(info) : 1;
  const where = clustered ? `a cluster of ${servers} servers` : 'a lone server';
  const found = `STREAM_REPLICAS is ${replicas}, with ${where}`;
  if (replicas > servers)
    return finding(
      'jetstream.replicas',
      'failure',
      found,
      `Set STREAM_REPLICAS to at most ${servers}, or add servers to the cluster: until then streams cannot be made.`,
    );
  if (!production) return ok('jetstream.replicas', found);
  if (replicas === 1)
    return finding(
      'jetstream.replicas',
      'warning',
      found,
      clustered
        ? 'Set STREAM_REPLICAS=3 for auth and registry: streams are changed when the registry starts, buckets by nats stream edit.'
        : 'Run three servers in three zones, and set STREAM_REPLICAS=3 for auth and registry.',
    );
  if (replicas % 2 === 0)
    return finding(
      'jetstream.replicas',
      'warning',
      found,
      'Set STREAM_REPLICAS to 3 or 5: an even number survives no more failures than the odd one below it.',
    );
  return ok('jetstream.replicas', found);
}

export function bytesText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || Number.isInteger(value) ? value : value.toFixed(1)} ${units[power]}`;
}
