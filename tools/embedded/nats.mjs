import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertPortFree, freePort, GuardedProcess, PortInUseError, stopOrphan } from './process.mjs';
import { ensureProgram } from './program.mjs';

const READY_MS = 15_000;

/**
 * @typedef {object} NatsTlsOptions paths of PEM files
 * @property {string} certFile
 * @property {string} keyFile
 * @property {string} [caFile] clients have to bring a certificate of these authorities
 */

/**
 * @typedef {object} NatsOptions
 * @property {string} dir where the configuration, the log and the store live; made when missing
 * @property {number} [port] default: a free one
 * @property {number} [websocketPort] opens a WebSocket listener (without TLS) there; 0 for a free port
 * @property {string} [config] further lines of configuration: accounts, limits
 * @property {Record<string, string>} [env] further variables, for the configuration to name
 * @property {NatsTlsOptions} [tls] TLS for clients, and no connection without
 * @property {string} [name] the server's name; default "posthorn"
 * @property {{ name: string, port: number, routes: number[] }} [cluster]
 * @property {(place: { dir: string, port: number, monitorPort: number }) => string} [configuration] the whole of it, in
 *   place of what is made of the above
 * @property {string} [removeWhenOrphaned] a directory to delete should this process die without stopping the server
 */

/** One nats-server with JetStream, on the loopback interface only. */
export class NatsServer {
  /** @type {GuardedProcess | undefined} */
  #process;
  /** @type {string} */
  #binary;
  /** @type {NatsOptions} */
  #options;

  /**
   * @param {string} binary
   * @param {NatsOptions} options
   * @param {{ port: number, websocketPort: number | undefined, monitorPort: number }} ports
   */
  constructor(binary, options, { port, websocketPort, monitorPort }) {
    this.#binary = binary;
    this.#options = options;
    this.port = port;
    this.websocketPort = websocketPort;
    this.monitorPort = monitorPort;
    this.name = options.name ?? 'posthorn';
    this.url = `${options.tls ? 'tls' : 'nats'}://127.0.0.1:${port}`;
    this.logFile = join(options.dir, 'nats.log');
  }

  get pid() {
    return this.#process?.pid;
  }

  get alive() {
    return this.#process?.alive ?? false;
  }

  /** Resolves with how the running process ended, once it has. */
  get exited() {
    return this.#process?.exited;
  }

  /** Resolves when the server answers clients. Also brings a stopped or killed one back: same port, same store. */
  async start() {
    if (this.#process?.alive) return;
    const { dir } = this.#options;
    const configFile = join(dir, 'nats.conf');
    const pidFile = join(dir, 'nats.pid');
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (existsSync(pidFile)) {
      const pid = Number(readFileSync(pidFile, 'utf8'));
      await stopOrphan(pid, { program: 'nats-server', directory: configFile }, 'SIGINT');
    }
    await assertPortFree(this.port, 'NATS_PORT', 'NATS');
    writeFileSync(configFile, this.#configuration());
    this.#process = new GuardedProcess(this.#binary, ['-c', configFile], {
      logFile: this.logFile,
      stopSignal: 'SIGINT',
      env: { ...process.env, ...this.#options.env },
      ...(this.#options.removeWhenOrphaned && {
        orphanSignal: 'SIGKILL',
        removeWhenOrphaned: this.#options.removeWhenOrphaned,
      }),
    });
    writeFileSync(pidFile, String(this.#process.pid));
    await this.#answers(this.#process);
  }

  /** Ends the server in order. */
  async stop() {
    await this.#process?.stop();
  }

  /** Ends the server as a crash would. */
  async kill() {
    await this.#process?.kill('SIGKILL');
  }

  /** Freezes the process (SIGSTOP) or lets it go on (SIGCONT): a server that is there and does not answer. */
  freeze() {
    if (this.pid) process.kill(this.pid, 'SIGSTOP');
  }

  thaw() {
    if (this.pid) process.kill(this.pid, 'SIGCONT');
  }

  /**
   * A document of the server's monitoring port, `healthz`, `jsz`, `varz`.
   * @param {string} path
   * @returns {Promise<any>}
   */
  async monitor(path) {
    const response = await fetch(`http://127.0.0.1:${this.monitorPort}/${path}`);
    return response.json();
  }

  #configuration() {
    const { dir, cluster, tls, config = '', configuration } = this.#options;
    if (configuration) return configuration({ dir, port: this.port, monitorPort: this.monitorPort });
    const lines = [
      `server_name: ${JSON.stringify(this.name)}`,
      `listen: "127.0.0.1:${this.port}"`,
      `http: "127.0.0.1:${this.monitorPort}"`,
      'max_payload: 2MB',
      `jetstream { store_dir: ${JSON.stringify(join(dir, 'store'))} }`,
    ];
    if (this.websocketPort) {
      lines.push(`websocket { listen: "127.0.0.1:${this.websocketPort}", no_tls: true }`);
    }
    if (tls) {
      const ca = tls.caFile ? `ca_file: ${JSON.stringify(tls.caFile)}, verify: true, ` : '';
      lines.push(
        `tls { ${ca}cert_file: ${JSON.stringify(tls.certFile)}, key_file: ${JSON.stringify(tls.keyFile)}, timeout: 5 }`,
      );
    }
    if (cluster) {
      const routes = cluster.routes.map((port) => `"nats://127.0.0.1:${port}"`).join(', ');
      lines.push(
        `cluster { name: ${cluster.name}, listen: "127.0.0.1:${cluster.port}", routes: [${routes}] }`,
      );
    }
    return `${lines.join('\n')}\n${config}\n`;
  }

  /** @param {GuardedProcess} server */
  async #answers(server) {
    const deadline = Date.now() + READY_MS;
    while (Date.now() < deadline) {
      if (!server.alive) {
        const log = server.logTail();
        if (log.includes('address already in use')) throw new PortInUseError(this.port, 'NATS_PORT', 'NATS');
        throw new Error(`nats-server ended at once. Its log says:\n${log}`);
      }
      if (await greets(this.port)) return;
      await sleep(10);
    }
    const log = server.logTail();
    await server.kill();
    throw new Error(`nats-server did not answer within ${READY_MS / 1000} s. Its log says:\n${log}`);
  }
}

/**
 * Starts one server.
 * @param {NatsOptions} options
 * @returns {Promise<NatsServer>}
 */
export async function startNatsServer(options) {
  const binary = ensureNatsServer();
  for (let attempt = 1; ; attempt++) {
    const server = new NatsServer(binary, options, {
      port: options.port ?? (await freePort()),
      websocketPort: options.websocketPort === 0 ? await freePort() : options.websocketPort,
      monitorPort: await freePort(),
    });
    try {
      await server.start();
      return server;
    } catch (error) {
      // A free port may be taken between the look and the use.
      if (!(error instanceof PortInUseError) || options.port !== undefined || attempt === 3) throw error;
    }
  }
}

/**
 * Starts a cluster and waits until its JetStream has a leader that all servers agree on.
 * @param {{ dir: string, size?: number, config?: string, removeWhenOrphaned?: string }} options
 * @returns {Promise<NatsServer[]>}
 */
export async function startNatsCluster({ dir, size = 3, config, removeWhenOrphaned }) {
  const routes = await Promise.all(Array.from({ length: size }, freePort));
  const starts = await Promise.allSettled(
    routes.map((port, index) =>
      startNatsServer({
        dir: join(dir, `nats-${index + 1}`),
        name: `nats-${index + 1}`,
        cluster: { name: 'posthorn', port, routes },
        config,
        removeWhenOrphaned,
      }),
    ),
  );
  const servers = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
  try {
    const failed = starts.find((start) => start.status === 'rejected');
    if (failed) throw failed.reason;
    await natsClusterSettled(servers);
    return servers;
  } catch (error) {
    await Promise.all(servers.map((server) => server.kill()));
    throw error;
  }
}

/**
 * Resolves when all these servers know one JetStream leader.
 * @param {NatsServer[]} servers
 */
export async function natsClusterSettled(servers) {
  const deadline = Date.now() + 30_000;
  while (Date.now() < deadline) {
    const leaders = await Promise.all(
      servers.map((server) =>
        server.monitor('jsz').then(
          (jsz) => jsz.meta_cluster?.leader,
          () => undefined,
        ),
      ),
    );
    if (leaders[0] && leaders.every((leader) => leader === leaders[0])) return;
    await sleep(50);
  }
  throw new Error('The NATS servers did not agree on a JetStream leader within 30 s');
}

/**
 * The path of the nats-server program; where the machine has none, its package manager is asked to install it.
 * @param {(line: string) => void} [log]
 * @returns {string}
 */
export function ensureNatsServer(log) {
  return ensureProgram(
    {
      names: ['nats-server'],
      variable: 'NATS_SERVER_BIN',
      packages: { apt: 'nats-server', brew: 'nats-server' },
      // Debian's package also starts a service on 4222, the port that we are about to use.
      service: 'nats-server',
      otherwise: [
        'Or get it from https://github.com/nats-io/nats-server/releases and set NATS_SERVER_BIN to its path,',
        'or run one elsewhere and set NATS_URL, for example:',
        '  docker run -p 4222:4222 nats:2.12 -js',
        '  NATS_URL=nats://127.0.0.1:4222 npm start',
      ],
    },
    log,
  );
}

/**
 * Whether a NATS server greets on this port.
 * @param {number} port
 */
async function greets(port) {
  const socket = connect(port, '127.0.0.1');
  try {
    const [chunk] = await once(socket, 'data', { signal: AbortSignal.timeout(1_000) });
    return String(chunk).startsWith('INFO ');
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
