/** TLS to NATS: when it is demanded, and whom a server has to prove to be. */
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { NodeConnectionOptions } from '@nats-io/transport-node';

/** Paths of PEM files, read anew at each connection, so that what is in them can be renewed. */
export interface NatsTls {
  /** The authorities that servers are trusted by. Not given: the public ones that Node knows. */
  readonly caFile?: string | undefined;
  /** Our certificate with its chain, for servers that ask for one; goes with `keyFile`. */
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/**
 * The client's options for TLS. It is demanded by a `tls://` URL or by `files`, be they none: a server that offers no
 * TLS is then refused, never talked to in plain text. Where it is not demanded, what a server offers is used.
 */
export function natsTlsOptions(
  servers: readonly string[],
  files: NatsTls | undefined,
): Pick<NodeConnectionOptions, 'tls'> {
  if (files === undefined && !servers.some((server) => /^tls:/i.test(server))) return {};
  const identity = { checkServerIdentity: proves(servers.map(hostOf)) };
  return { tls: { ...files, ...identity } };
}

/**
 * A server proves to be the host that was connected to. Servers known by their address alone, those that the cluster
 * tells of among them, are `localhost` to the client: they prove to be one of the hosts that were given.
 */
function proves(hosts: readonly string[]) {
  return (name: string, certificate: PeerCertificate): Error | undefined => {
    const wanted = hosts.includes(name) ? [name] : hosts;
    const errors = wanted.map((host) => checkServerIdentity(host, certificate));
    return errors.includes(undefined) ? undefined : errors[0];
  };
}

function hostOf(server: string): string {
  const { hostname } = new URL(/^\w+:\/\//.test(server) ? server : `nats://${server}`);
  return hostname.replace(/^\[(.*)\]$/, '$1');
}
