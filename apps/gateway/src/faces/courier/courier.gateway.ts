/** Sessions of this gateway: made when a socket comes in, ended together when the process goes down. */
import { type OnGatewayConnection, WebSocketGateway } from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { GatewayCore } from '../../core.js';
import { Connections } from '../../drain.js';
import { Session, type SessionParts, sessionParts } from '../../session/session.js';
import { SocketCarrier } from '../../session/socket.js';
import type { Admission } from './courier.adapter.js';
import { dialectOf } from './drop-in/original-dialect.js';

@WebSocketGateway({ path: '/ws' })
export class CourierGateway implements OnGatewayConnection {
  readonly #sessions: Connections<Session>;
  readonly #core: GatewayCore;
  #parts: SessionParts | undefined;

  constructor(core: GatewayCore) {
    this.#core = core;
    this.#sessions = new Connections(core.config.drainBudget);
    core.service.shutdown.on('finish in flight', 'sockets', (overdue) => this.#sessions.drain(overdue));
  }

  handleConnection(socket: WebSocket, { principal, stream }: Admission): void {
    this.#parts ??= this.#assemble();
    const dialect = dialectOf(this.#core.config, socket.protocol);
    const { metrics, service } = this.#core;
    const { connections, opened } = metrics;
    const { logger } = service;
    const { audience } = principal;
    const session = new Session(
      this.#parts,
      new SocketCarrier(socket, stream),
      principal,
      dialect,
      (gone) => {
        connections.dec();
        logger.debug({ connection: gone.id, audience }, 'socket closed');
        this.#sessions.remove(gone);
      },
    );
    connections.inc();
    opened.socket.inc();
    logger.debug({ connection: session.id, audience }, 'socket opened');
    this.#sessions.add(session);
    void session.open();
    // Between the upgrade's admission and now either may have come.
    if (this.#parts.isRevoked(principal)) session.revoke();
    else if (this.#core.service.shutdown.signal.aborted) void session.sendElsewhere(this.#sessions.pause());
  }

  #assemble(): SessionParts {
    this.#core.revocations.onRevoked(({ audience, covers }) => {
      for (const session of this.#sessions) {
        if (session.principal.audience === audience && covers(session.principal)) session.revoke();
      }
    });
    return sessionParts(this.#core);
  }
}
