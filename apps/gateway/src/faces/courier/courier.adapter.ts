/**
 * The way in for sockets: `GET /ws?token=<key>`. A key is judged before the upgrade, so a bad one never
 * becomes a socket; frames go to the session and pass no pipe, guard or interceptor of Nest.
 */
import type { Server as HttpServer, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { INestApplicationContext } from '@nestjs/common';
import { AbstractWsAdapter } from '@nestjs/websockets';
import { asProblem, type Principal, ProblemError, toProblemDocument } from '@posthorn/contracts';
import { WebSocketServer } from 'ws';
import { originAllowed } from '../../config.js';
import type { GatewayCore } from '../../core.js';

/** What the adapter hands over with a socket. */
export interface Admission {
  readonly principal: Principal;
  /** The socket's own stream. */
  readonly stream: Duplex;
}

const SUBPROTOCOL = 'posthorn.v1';
const KEY_PREFIX = 'posthorn.key.';

export class CourierAdapter extends AbstractWsAdapter {
  readonly #core: GatewayCore;
  #upgrade: ((request: IncomingMessage, stream: Duplex, head: Buffer) => void) | undefined;

  constructor(app: INestApplicationContext, core: GatewayCore) {
    super(app);
    this.#core = core;
  }

  create(_port: number, options: { path?: string } = {}): WebSocketServer {
    const server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: this.#core.config.frameLimit,
      // The key among the offered subprotocols is a credential, never an answer.
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    });
    this.#upgrade = (request, stream, head) => {
      const hangUp = () => stream.destroy();
      stream.on('error', hangUp);
      this.#admit(request, options.path).then(
        (principal) => {
          if (stream.destroyed) return;
          stream.off('error', hangUp);
          server.handleUpgrade(request, stream, head, (socket) => {
            server.emit('connection', socket, { principal, stream } satisfies Admission);
          });
        },
        (error) => this.#refuse(stream, asProblem(error)),
      );
    };
    (this.httpServer as HttpServer).on('upgrade', this.#upgrade);
    return server;
  }

  /** Frames do not come this way: the session reads them. */
  bindMessageHandlers(): void {}

  override async close(server: WebSocketServer): Promise<void> {
    if (this.#upgrade) (this.httpServer as HttpServer).off('upgrade', this.#upgrade);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async #admit(request: IncomingMessage, path: string | undefined): Promise<Principal> {
    const core = this.#core;
    const url = new URL(request.url ?? '/', 'ws://gateway');
    if (url.pathname !== path) throw new ProblemError('route_not_found', 'Sockets are at /ws');
    if (core.service.shutdown.signal.aborted || !core.connected) {
      throw new ProblemError('unavailable', 'This gateway takes no sockets now', { retryAfter: 1 });
    }
    if (!originAllowed(core.config, request.headers.origin)) {
      throw new ProblemError('forbidden', 'The origin is not allowed');
    }
    const key = keyOf(request, url);
    if (!key) throw new ProblemError('unauthorized', 'A key from GET /v1/sign is required');
    const principal = await core.keys.open(key, 'socket');
    if (core.revocations.isRevoked(principal)) {
      throw new ProblemError('unauthorized', 'The token was revoked');
    }
    return principal;
  }

  #refuse(stream: Duplex, problem: ProblemError): void {
    this.#core.metrics.errors[problem.code].inc();
    const body = JSON.stringify(toProblemDocument(problem));
    stream.end(
      `HTTP/1.1 ${problem.status} ${problem.code}\r\n` +
        'Content-Type: application/problem+json; charset=utf-8\r\n' +
        `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
  }
}

/** The key from the query, or from the subprotocols, where no log shows it. */
function keyOf(request: IncomingMessage, url: URL): string | undefined {
  const offered = request.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? [];
  const key = offered.find((name) => name.startsWith(KEY_PREFIX))?.slice(KEY_PREFIX.length);
  return key || url.searchParams.get('token') || undefined;
}
