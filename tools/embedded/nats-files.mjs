/** nats-servers that run with a configuration file of k8s/, on loopback and with folders of their own. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { root } from '../checkout.mjs';
import { ensureNatsServer, startNatsServer } from './nats.mjs';
import { freePort } from './process.mjs';

const HEALTHY_MS = 60_000;

/**
 * @typedef {import('./nats.mjs').NatsServer} NatsServer
 *
 * @typedef {object} NatsFilesOptions
 * @property {string} file the configuration, from the root of the checkout
 * @property {string} accounts the text of the accounts.conf that it includes
 * @property {string} dir the servers' folders are made in it
 * @property {number} size how many servers
 * @property {Readonly<Record<string, string>>} env what the manifests set; NATS_ROUTES is made to lead to these servers
 * @property {readonly number[]} [ports] for clients; default: free ones
 * @property {string} [tls] the folder of tls.crt, tls.key and ca.crt, where the file speaks of them
 * @property {string} [removeWhenOrphaned] a directory to delete should this process die without stopping the servers
 */

/**
 * Starts as many servers with one file, and resolves when all say that they are well.
 * @param {NatsFilesOptions} options
 * @returns {Promise<NatsServer[]>}
 */
export async function startNatsFromFiles({ file, accounts, dir, size, env, ports, tls, removeWhenOrphaned }) {
  const text = readFileSync(join(root, file), 'utf8');
  const old = !knowsSyncInterval(ensureNatsServer());
  const routes = await Promise.all(Array.from({ length: size }, freePort));
  const NATS_ROUTES = `[${routes
    .map((port) => `nats://route:${env.NATS_PASSWORD_ROUTE}@127.0.0.1:${port}`)
    .join(', ')}]`;
  const starts = await Promise.allSettled(
    routes.map((route, index) => {
      const name = `nats-${index}`;
      const folder = join(dir, name);
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileSync(join(folder, 'accounts.conf'), accounts, { mode: 0o600 });
      return startNatsServer({
        dir: folder,
        name,
        port: ports?.[index],
        env: { ...env, SERVER_NAME: name, NATS_ROUTES },
        removeWhenOrphaned,
        configuration: (place) =>
          moved(text, [
            ['\nport: 4222', `\nlisten: "127.0.0.1:${place.port}"`],
            ['http_port: 8222', `http: "127.0.0.1:${place.monitorPort}"`],
            ['store_dir: /data', `store_dir: "${place.dir}/data"`],
            ['/run/nats/nats.pid', `"${place.dir}/nats.pid"`],
            ...(tls ? [pair(/\/etc\/nats-tls\/(\S+)/g, `"${tls}/$1"`)] : []),
            ...(size > 1 ? [pair('  port: 6222', `  listen: "127.0.0.1:${route}"`)] : []),
            // The servers of this machine may be older than those of the manifests.
            ...(old ? [pair(/sync_interval: \S+/, '')] : []),
          ]),
      });
    }),
  );
  const servers = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
  try {
    const failed = starts.find((start) => start.status === 'rejected');
    if (failed) throw failed.reason;
    await Promise.all(servers.map(natsHealthy));
    return servers;
  } catch (error) {
    await Promise.all(servers.map((server) => server.kill()));
    throw error;
  }
}

/**
 * Resolves when a server says that it is well, its streams and consumers caught up: what its startup probe waits for.
 * @param {NatsServer} server
 */
export async function natsHealthy(server) {
  const deadline = Date.now() + HEALTHY_MS;
  let said = 'nothing';
  while (Date.now() < deadline) {
    const health = await server.monitor('healthz').catch(() => undefined);
    if (health?.status === 'ok') return;
    said = JSON.stringify(health);
    await sleep(50);
  }
  throw new Error(`${server.name} was not well within ${HEALTHY_MS / 1000} s, and said ${said}`);
}

/**
 * @param {string | RegExp} from
 * @param {string} to
 * @returns {[string | RegExp, string]}
 */
function pair(from, to) {
  return [from, to];
}

/**
 * @param {string} config
 * @param {[string | RegExp, string][]} changes
 */
function moved(config, changes) {
  return changes.reduce((text, [from, to]) => {
    const next = text.replace(from, to);
    if (next === text) throw new Error(`the configuration does not have ${from}`);
    return next;
  }, config);
}

/** @param {string} binary */
function knowsSyncInterval(binary) {
  const { stdout } = spawnSync(binary, ['--version'], { encoding: 'utf8' });
  const [, major = '0', minor = '0'] = /v(\d+)\.(\d+)/.exec(stdout) ?? [];
  return Number(major) > 2 || Number(minor) >= 10;
}
