/** Servers that run with the configuration files of k8s/, on loopback and with a folder of their own. */
import { readFileSync } from 'node:fs';
import { tempDir } from '@posthorn/testing';
import { startNatsFromFiles as startIn } from '../../tools/embedded/nats-files.mjs';

export interface NatsFromFiles extends AsyncDisposable {
  /** One for each server. */
  readonly urls: readonly string[];
  /** What its monitoring says of each server's JetStream. */
  jetstream(): Promise<Monitored[]>;
  /** The ports at which the servers wait for each other. */
  routePorts(): Promise<number[]>;
  /** Ends one server as a crash would. */
  kill(index: number): Promise<void>;
}

/** A part of what a server's monitoring answers. */
interface Monitored {
  readonly status?: string;
  readonly meta_cluster?: { readonly leader?: string; readonly cluster_size: number };
}

/**
 * Starts as many servers with one configuration file, and resolves when all say that they are well.
 * @param env what the manifests set; NATS_ROUTES is made to lead to these servers
 * @param tls a folder, for what the manifests mount as /etc/nats-tls
 */
export async function startNatsFromFiles(
  file: string,
  { size, env, tls }: { size: number; env: Readonly<Record<string, string>>; tls?: string },
): Promise<NatsFromFiles> {
  const home = await tempDir();
  const accounts = readFileSync('k8s/base/nats/accounts.conf', 'utf8');
  const servers = await startIn({
    file,
    accounts,
    dir: home.path,
    size,
    env,
    ...(tls && { tls }),
    removeWhenOrphaned: home.path,
  });
  return {
    urls: servers.map(({ url }) => url),
    jetstream: () => Promise.all(servers.map((server) => server.monitor('jsz').catch(() => ({})))),
    routePorts: () =>
      Promise.all(servers.map(async (server) => (await server.monitor('varz')).cluster.cluster_port)),
    async kill(index) {
      await servers[index]?.kill();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server.kill()));
      await home[Symbol.asyncDispose]();
    },
  };
}
