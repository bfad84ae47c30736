/** Sessions of this gateway: made when a socket comes in, ended together when the process goes down. */
import { type OnGatewayConnection, WebSocketGateway } from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { GatewayCore } from '../../core.js';
import { Session, type SessionParts } from '../../session/session.js';
import type { Admission } from './courier.adapter.js';

/** How often a drain sends a part of the connections elsewhere, in milliseconds. */
const DRAIN_STEP = 250;

@WebSocketGateway({ path: '/ws' })
export class CourierGateway implements OnGatewayConnection {
  readonly #sessions = new Set<Session>();
  readonly #core: GatewayCore;
  #parts: SessionParts | undefined;

  constructor(core: GatewayCore) {
    this.#core = core;
    core.service.shutdown.on('finish in flight', 'sockets', () => this.#drain());
  }

  handleConnection(socket: WebSocket, { principal, stream }: Admission): void {
    this.#parts ??= this.#assemble();
    const session = new Session(this.#parts, socket, stream, principal, (gone) =>
      this.#sessions.delete(gone),
    );
    this.#sessions.add(session);
    session.open();
  }

  #assemble(): SessionParts {
    const { hub, bus, wheel, verifier, revocations, config, metrics, service } = this.#core;
    revocations.onRevoked(() => {
      for (const session of this.#sessions) {
        if (revocations.isRevoked(session.principal)) session.revoke();
      }
    });
    return {
      hub,
      bus,
      wheel,
      verifier,
      isRevoked: (principal) => revocations.isRevoked(principal),
      config,
      metrics,
      logger: service.logger,
    };
  }

  /** Paced, so that the other gateways are not met by everybody at once; each client waits a random while. */
  async #drain(): Promise<void> {
    const { drainBudget } = this.#core.config;
    const sessions = [...this.#sessions];
    const steps = Math.max(1, Math.min(sessions.length, Math.floor(drainBudget / 2 / DRAIN_STEP)));
    const perStep = Math.ceil(sessions.length / steps);
    for (let i = 0; i < sessions.length; i += perStep) {
      for (const session of sessions.slice(i, i + perStep)) {
        session.sendElsewhere(Math.round(Math.random() * Math.min(5_000, drainBudget)));
      }
      if (i + perStep < sessions.length) await new Promise((resolve) => setTimeout(resolve, DRAIN_STEP));
    }
  }
}
