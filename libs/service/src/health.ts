import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from './logger.js';
import type { Metrics } from './metrics.js';
import { StartError } from './start-error.js';

/** The state of one thing that the process needs. */
export interface Check {
  readonly up: boolean;
  /** Why it is down, or anything worth telling. Never holds credentials. */
  readonly detail?: string;
  /** When it last changed between up and down, ISO 8601. */
  readonly since: string;
}

/** The body of `/health/ready`. */
export interface Readiness {
  readonly status: 'ready' | 'not_ready' | 'draining';
  readonly checks: Readonly<Record<string, Check>>;
}

/**
 * What the process knows of its own fitness. The owner of a dependency reports its state here; readiness is
 * all checks up and not draining. Liveness does not depend on any of them: restarting a process does not
 * bring NATS back.
 */
export class Health {
  readonly #checks = new Map<string, Check>();
  #draining = false;

  /** Declares checks that have to come up before the process is ready. They begin as down. */
  expect(...names: string[]): void {
    for (const name of names) if (!this.#checks.has(name)) this.set(name, false, 'not started');
  }

  /** Reports the state of a check. A name that was not declared before counts from now on. */
  set(name: string, up: boolean, detail?: string): void {
    const before = this.#checks.get(name);
    const since = before?.up === up ? before.since : new Date().toISOString();
    this.#checks.set(name, { up, since, ...(detail === undefined ? {} : { detail }) });
  }

  /** From now on the process is not ready, whatever its checks say. */
  drain(): void {
    this.#draining = true;
  }

  get ready(): boolean {
    return !this.#draining && [...this.#checks.values()].every(({ up }) => up);
  }

  /** Tells of it in metrics. */
  expose(metrics: Metrics): this {
    metrics.gauge('ready', 'Whether the process is ready: 1 or 0', () => (this.ready ? 1 : 0));
    return this;
  }

  readiness(): Readiness {
    const status = this.#draining ? 'draining' : this.ready ? 'ready' : 'not_ready';
    return { status, checks: Object.fromEntries(this.#checks) };
  }
}

/** An answer to a probe, for whatever HTTP server the process has. */
export interface ProbeResponse {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** What the probes report on. */
export interface ProbeSources {
  readonly health: Health;
  readonly metrics: Metrics;
}

/** The answer to `/health/live` (always 200) and `/health/ready` (200 or 503); `undefined` for other paths. */
export function healthResponse(health: Health, path: string): ProbeResponse | undefined {
  if (path === '/health/live') return json(200, { status: 'live' });
  if (path === '/health/ready') return json(health.ready ? 200 : 503, health.readiness());
  return undefined;
}

/** The answer to `/metrics`. */
export async function metricsResponse(metrics: Metrics): Promise<ProbeResponse> {
  return { status: 200, ...(await metrics.exposition()) };
}

function json(status: number, value: unknown): ProbeResponse {
  return { status, contentType: 'application/json; charset=utf-8', body: JSON.stringify(value) };
}

/** Where a probe server listens. */
export interface ProbeServerOptions extends ProbeSources {
  readonly port: number;
  readonly host: string;
  readonly logger: Logger;
}

/** A listening probe server. */
export interface ProbeServer {
  /** The port in use: the one asked for, or the free one taken for 0. */
  readonly port: number;
  close(): Promise<void>;
}

/**
 * The only HTTP of a process without a public face: `/health/live`, `/health/ready`, `/metrics`. It has to
 * listen before anything is waited for, so that an operator can ask what is missing.
 *
 * @throws {StartError} when the address cannot be listened on, naming the variable to set.
 */
export async function startProbeServer(options: ProbeServerOptions): Promise<ProbeServer> {
  const { port, host, health, metrics, logger } = options;
  const server = createServer((request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    const answer = async (): Promise<ProbeResponse> => {
      if (request.method !== 'GET' && request.method !== 'HEAD') return json(405, { status: 'GET only' });
      if (path === '/metrics') return metricsResponse(metrics);
      return healthResponse(health, path) ?? json(404, { status: 'no such probe' });
    };
    answer()
      .catch((err: unknown) => {
        logger.error({ err, path }, 'a probe failed');
        return json(500, { status: 'failed' });
      })
      .then(({ status, contentType, body }) => {
        response.writeHead(status, {
          'content-type': contentType,
          'cache-control': 'no-store',
          'x-content-type-options': 'nosniff',
        });
        response.end(request.method === 'HEAD' ? undefined : body);
      })
      .catch((err: unknown) => logger.error({ err, path }, 'a probe could not be answered'));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  logger.info({ host, port: address.port }, 'probes are listening');
  return {
    port: address.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Turns a failed `listen` into an error that says which variable to change. */
export function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: `port ${port} on ${host} is in use: set PORT to a free one`,
    EACCES: `port ${port} on ${host} needs privileges: set PORT to 1024 or above`,
    EADDRNOTAVAIL: `${host} is not an address of this machine: set HOST`,
    ENOTFOUND: `${host} is not an address: set HOST`,
    EAI_AGAIN: `${host} is not an address: set HOST`,
  };
  const reason = reasons[error.code ?? ''];
  return reason ? new StartError(`Cannot listen: ${reason}`, { cause: error }) : error;
}
