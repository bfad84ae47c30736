/** Servers that run with the configuration files of k8s/, on loopback and with a folder of their own. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually, freePort, tempDir } from '@posthorn/testing';
import { ensureNatsServer } from '../../tools/embedded/nats.mjs';
import { GuardedProcess } from '../../tools/embedded/process.mjs';

const ACCOUNTS = 'k8s/base/nats/accounts.conf';

export interface NatsFromFiles extends AsyncDisposable {
  /** One for each server. */
  readonly urls: readonly string[];
  /** What its monitoring says of each server's JetStream. */
  jetstream(): Promise<Monitored[]>;
}

/** A part of what a server's monitoring answers. */
interface Monitored {
  readonly status?: string;
  readonly meta_cluster?: { readonly leader?: string; readonly cluster_size: number };
}

/**
 * Starts as many servers with one configuration file, and resolves when all say that they are well.
 * @param env what the manifests set; NATS_ROUTES is made to lead to these servers
 */
export async function startNatsFromFiles(
  file: string,
  { size, env }: { size: number; env: Readonly<Record<string, string>> },
): Promise<NatsFromFiles> {
  const home = await tempDir();
  const binary = ensureNatsServer();
  const ports = await Promise.all(
    Array.from({ length: size }, async () => ({
      client: await freePort(),
      monitor: await freePort(),
      cluster: await freePort(),
    })),
  );
  const routes = ports.map(({ cluster }) => `nats://route:${env.NATS_PASSWORD_ROUTE}@127.0.0.1:${cluster}`);
  const servers = ports.map(({ client, monitor, cluster }, index) => {
    const dir = join(home.path, `nats-${index}`);
    mkdirSync(dir);
    writeFileSync(
      join(dir, 'nats.conf'),
      moved(readFileSync(file, 'utf8'), [
        ['\nport: 4222', `\nlisten: "127.0.0.1:${client}"`],
        ['http_port: 8222', `http: "127.0.0.1:${monitor}"`],
        ['store_dir: /data', `store_dir: "${dir}/data"`],
        ['/run/nats/nats.pid', `"${dir}/nats.pid"`],
        ...(size > 1 ? [['  port: 6222', `  listen: "127.0.0.1:${cluster}"`] as const] : []),
        // The servers of a test are older than those of the manifests.
        ...(knowsSyncInterval(binary) ? [] : [[/sync_interval: \S+/, ''] as const]),
      ]),
    );
    copyFileSync(ACCOUNTS, join(dir, 'accounts.conf'));
    return new GuardedProcess(binary, ['--config', join(dir, 'nats.conf')], {
      logFile: join(dir, 'log'),
      env: { ...env, SERVER_NAME: `nats-${index}`, NATS_ROUTES: `[${routes.join(', ')}]` },
      orphanSignal: 'SIGKILL',
    });
  });
  const monitored = (path: string): Promise<Monitored[]> =>
    Promise.all(
      ports.map(async ({ monitor }) => {
        const response = await fetch(`http://127.0.0.1:${monitor}/${path}`).catch(() => undefined);
        return (await response?.json()) ?? {};
      }),
    );
  const dispose = async () => {
    await Promise.all(servers.map((server) => server.kill()));
    await home[Symbol.asyncDispose]();
  };
  try {
    await eventually(async () => {
      const dead = servers.find((server) => !server.alive);
      if (dead) throw new Error(`nats-server ended:\n${dead.logTail()}`);
      return (await monitored('healthz')).every(({ status }) => status === 'ok');
    });
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    urls: ports.map(({ client }) => `nats://127.0.0.1:${client}`),
    jetstream: () => monitored('jsz'),
    [Symbol.asyncDispose]: dispose,
  };
}

function moved(config: string, changes: readonly (readonly [from: string | RegExp, to: string])[]): string {
  return changes.reduce((text, [from, to]) => {
    const next = text.replace(from, to);
    if (next === text) throw new Error(`the configuration does not have ${from}`);
    return next;
  }, config);
}

function knowsSyncInterval(binary: string): boolean {
  const { stdout } = spawnSync(binary, ['--version'], { encoding: 'utf8' });
  const [, major = '0', minor = '0'] = /v(\d+)\.(\d+)/.exec(stdout) ?? [];
  return Number(major) > 2 || Number(minor) >= 10;
}
