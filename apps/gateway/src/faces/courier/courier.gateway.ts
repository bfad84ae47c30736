/** Sessions of this gateway: made when a socket comes in, ended together when the process goes down. */
import { type OnGatewayConnection, WebSocketGateway } from '@nestjs/websockets';
import type { WebSocket } from 'ws';
import { GatewayCore } from '../../core.js';
import { Session, type SessionParts } from '../../session/session.js';
import type { Admission } from './courier.adapter.js';
import { dialectOf } from './drop-in/original-dialect.js';

/** How often a drain sends a part of the connections elsewhere, in milliseconds. */
const DRAIN_STEP = 250;
/** The longest wait that a client is asked for before it comes back, in milliseconds. */
const LONGEST_AWAY = 5_000;

@WebSocketGateway({ path: '/ws' })
export class CourierGateway implements OnGatewayConnection {
  readonly #sessions = new Set<Session>();
  readonly #core: GatewayCore;
  #parts: SessionParts | undefined;
  #allGone: (() => void) | undefined;

  constructor(core: GatewayCore) {
    this.#core = core;
    core.service.shutdown.on('finish in flight', 'sockets', (overdue) => this.#drain(overdue));
  }

  handleConnection(socket: WebSocket, { principal, stream }: Admission): void {
    this.#parts ??= this.#assemble();
    const dialect = dialectOf(this.#core.config, socket.protocol);
    const session = new Session(this.#parts, socket, stream, principal, dialect, (gone) => {
      this.#sessions.delete(gone);
      if (this.#sessions.size === 0) this.#allGone?.();
    });
    this.#sessions.add(session);
    session.open();
    // Between the upgrade's admission and now either may have come.
    if (this.#parts.isRevoked(principal)) session.revoke();
    else if (this.#core.service.shutdown.signal.aborted) void session.sendElsewhere(this.#pause());
  }

  #assemble(): SessionParts {
    const { hub, bus, publisher, wheel, verifier, revocations, config, metrics, service } = this.#core;
    revocations.onRevoked(({ audience, covers }) => {
      for (const session of this.#sessions) {
        if (session.principal.audience === audience && covers(session.principal)) session.revoke();
      }
    });
    return {
      hub,
      bus,
      publisher,
      wheel,
      verifier,
      isRevoked: (principal) => revocations.isRevoked(principal),
      config,
      metrics,
      logger: service.logger,
    };
  }

  /**
   * Paced, so that the other gateways are not met by everybody at once; each client waits a random while. Who
   * does not go within the budget is cut off.
   */
  async #drain(overdue: AbortSignal): Promise<void> {
    if (this.#sessions.size === 0) return;
    const gone = new Promise<void>((resolve) => {
      this.#allGone = resolve;
      overdue.addEventListener('abort', () => resolve());
    });
    const sessions = [...this.#sessions];
    const steps = Math.max(1, Math.floor(this.#core.config.drainBudget / 2 / DRAIN_STEP));
    const perStep = Math.ceil(sessions.length / steps);
    for (let i = 0; i < sessions.length && !overdue.aborted; i += perStep) {
      if (i > 0) await new Promise((resolve) => setTimeout(resolve, DRAIN_STEP));
      for (const session of sessions.slice(i, i + perStep)) void session.sendElsewhere(this.#pause());
    }
    await gone;
    for (const session of this.#sessions) session.terminate();
  }

  #pause(): number {
    return Math.round(Math.random() * Math.min(LONGEST_AWAY, this.#core.config.drainBudget));
  }
}
