/**
 * The way in for sockets: `GET /ws?token=<key>`. A key is judged before the upgrade, so a bad one never
 * becomes a socket; frames go to the session and pass no pipe, guard or interceptor of Nest.
 */
import type { Server as HttpServer, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { INestApplicationContext } from '@nestjs/common';
import { AbstractWsAdapter } from '@nestjs/websockets';
import { asProblem, type Principal, ProblemError } from '@posthorn/contracts';
import { WebSocketServer } from 'ws';
import type { GatewayCore } from '../../core.js';
import { requestIdOf } from '../../http/calls-in.js';
import { refuse } from '../../http/refusal.js';

/** What the adapter hands over with a socket. */
export interface Admission {
  readonly principal: Principal;
  /** The socket's own stream. */
  readonly stream: Duplex;
}

const SUBPROTOCOL = 'posthorn.v1';
const KEY_PREFIX = 'posthorn.key.';
/**
 * What one socket may keep of the process. A part of a frame keeps all the bytes alive that were read with it, so
 * few may wait for the rest; a peer has so many milliseconds to answer a close.
 */
const SOCKET_LIMITS = { maxFragments: 64, maxBufferedChunks: 1_024, closeTimeout: 5_000 };

export class CourierAdapter extends AbstractWsAdapter {
  readonly #core: GatewayCore;
  #upgrade: ((request: IncomingMessage, stream: Duplex, head: Buffer) => void) | undefined;

  constructor(app: INestApplicationContext, core: GatewayCore) {
    super(app);
    this.#core = core;
  }

  create(_port: number, options: { path?: string } = {}): WebSocketServer {
    const http = this.httpServer as HttpServer;
    const server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: this.#core.config.frameLimit,
      ...SOCKET_LIMITS,
      // The key among the offered subprotocols is a credential, never an answer.
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    });
    server.on('wsClientError', (error, stream, request) => {
      this.#refuse(stream, new ProblemError('request_invalid', error.message), request);
    });
    this.#upgrade = (request, stream, head) => {
      if (request.headers.upgrade?.toLowerCase() !== 'websocket') {
        serveWithoutUpgrade(http, request, stream, head);
        return;
      }
      const hangUp = () => stream.destroy();
      stream.on('error', hangUp);
      this.#admit(request, stream, options.path).then(
        (principal) => {
          if (stream.destroyed) return;
          stream.off('error', hangUp);
          server.handleUpgrade(request, stream, head, (socket) => {
            server.emit('connection', socket, { principal, stream } satisfies Admission);
          });
        },
        (error) => this.#refuse(stream, asProblem(error), request),
      );
    };
    http.on('upgrade', this.#upgrade);
    return server;
  }

  /** Frames do not come this way: the session reads them. */
  bindMessageHandlers(): void {}

  override async close(server: WebSocketServer): Promise<void> {
    if (this.#upgrade) (this.httpServer as HttpServer).off('upgrade', this.#upgrade);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async #admit(request: IncomingMessage, stream: Duplex, path: string | undefined): Promise<Principal> {
    const core = this.#core;
    core.addresses.admitUpgrade(request, stream);
    const [pathname, query = ''] = (request.url ?? '').split('?', 2);
    if (pathname !== path) throw new ProblemError('route_not_found', 'Sockets are at /ws');
    if (core.service.shutdown.signal.aborted || !core.connected) {
      throw new ProblemError('unavailable', 'This gateway takes no sockets now', { retryAfter: 1 });
    }
    if (!core.origins.admits(request.headers)) {
      throw new ProblemError('forbidden', 'The origin is not allowed');
    }
    const key = keyOf(request, query);
    if (!key) throw new ProblemError('unauthorized', 'A key from GET /v1/sign is required');
    const principal = await core.metrics.checked('socket_key', core.keys.open(key, 'socket'));
    if (core.revocations.isRevoked(principal)) {
      throw new ProblemError('unauthorized', 'The token was revoked');
    }
    if (!stream.destroyed) stream.once('close', core.connections.take(principal));
    return principal;
  }

  #refuse(stream: Duplex, problem: ProblemError, request: IncomingMessage): void {
    const { metrics, service } = this.#core;
    const { code, status } = problem;
    metrics.errors[code].inc();
    service.logger.info({ request: requestIdOf(request), code, status }, 'socket refused');
    refuse(stream, problem);
  }
}

/** The key from the query, or from the subprotocols, where no log shows it. */
function keyOf(request: IncomingMessage, query: string): string | undefined {
  const offered = request.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? [];
  const key = offered.find((name) => name.startsWith(KEY_PREFIX))?.slice(KEY_PREFIX.length);
  return key || new URLSearchParams(query).get('token') || undefined;
}

/**
 * Serves a request whose offer to upgrade is not taken, as HTTP wants it: clients that would like HTTP/2 make
 * one with every call. Node takes any offer as soon as somebody listens to `upgrade`, so the request goes back
 * in without it.
 */
function serveWithoutUpgrade(http: HttpServer, request: IncomingMessage, stream: Duplex, head: Buffer): void {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const [name, value] = request.rawHeaders.slice(i, i + 2);
    if (!/^(?:upgrade|connection|http2-settings)$/i.test(name!)) lines.push(`${name}: ${value}`);
  }
  stream.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
  http.emit('connection', stream);
}
