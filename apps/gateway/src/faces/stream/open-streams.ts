/** The event streams of this gateway: how many of whom, and what ends them. */
import { Injectable } from '@nestjs/common';
import { type Cursor, type Principal, ProblemError } from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { Connections } from '../../drain.js';
import { Places } from '../../places.js';
import type { ClientFrame } from '../../session/client-frame.js';
import { type SessionParts, sessionParts } from '../../session/session.js';
import { BLOCK_END, retryLine } from './blocks.js';
import { EventStream } from './event-stream.js';
import { AnswerCarrier, FrameStream } from './frame-stream.js';
import { OpenAnswer } from './open-answer.js';
import type { Interest } from './topics.js';
import type { Voice } from './voice.js';

export const STREAM_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-store',
  // Proxies hold answers back otherwise.
  'x-accel-buffering': 'no',
} as const;

export interface StreamRequest {
  readonly principal: Principal;
  readonly interest: Interest;
  readonly since: Cursor | undefined;
  readonly voice: Voice;
}

@Injectable()
export class OpenStreams {
  readonly #core: GatewayCore;
  readonly #streams: Connections<EventStream | FrameStream>;
  readonly #places: Places;
  #parts: SessionParts | undefined;

  constructor(core: GatewayCore) {
    this.#core = core;
    this.#streams = new Connections(core.config.drainBudget);
    this.#places = new Places(core.config.streamLimit, 'event streams');
    core.service.shutdown.on('finish in flight', 'streams', (overdue) => this.#streams.drain(overdue));
  }

  /**
   * Answers with a stream; resolves once it has begun.
   * @throws ProblemError `subscription_limit`; `unavailable`; `unauthorized` where the token was revoked meanwhile
   */
  async open({ principal, ...request }: StreamRequest, reply: FastifyReply): Promise<void> {
    const core = this.#core;
    const leave = this.#enter(principal, reply);
    if (!leave) return;
    const stream = new EventStream({
      core,
      principal,
      ...request,
      answer: new OpenAnswer(reply.raw, core.wheel),
      closed: (gone) => {
        leave();
        this.#streams.remove(gone);
      },
    });
    const start = await stream.started;
    if (stream.ended) return void reply.hijack();
    this.#assertStands(principal);
    this.#streams.add(stream);
    reply.hijack();
    stream.open(start, headersOf(reply));
    if (core.service.shutdown.signal.aborted) stream.sendElsewhere(this.#streams.pause());
  }

  /**
   * Answers with the frames of a socket.
   * @param frames what its client asks for
   * @throws ProblemError as {@link open}
   */
  openFrames(principal: Principal, frames: readonly ClientFrame[], reply: FastifyReply): void {
    const { wheel, metrics } = this.#core;
    this.#assertStands(principal);
    const leave = this.#enter(principal, reply);
    if (!leave) return;
    const carrier = new AnswerCarrier(reply.raw, wheel);
    const stream = new FrameStream(this.#parts!, carrier, principal, frames, (gone) => {
      metrics.streams.dec();
      leave();
      this.#streams.remove(gone);
    });
    metrics.streams.inc();
    metrics.opened.event_stream.inc();
    this.#streams.add(stream);
    const headers = headersOf(reply);
    reply.hijack();
    carrier.begin(headers);
    stream.open();
  }

  /**
   * Answers a client that would never come again after an error: browsers give an `EventSource` up at any status
   * but 200.
   */
  sendAway(reply: FastifyReply, seconds: number): void {
    reply.hijack();
    reply.raw.writeHead(200, { ...headersOf(reply), connection: 'close' });
    reply.raw.end(retryLine(seconds * 1_000 * (1 + Math.random())) + BLOCK_END);
  }

  /**
   * Counts a stream of a user.
   * @returns to be called when it is over; undefined where its client has hung up, while its token was verified, say:
   * that is not told again
   * @throws ProblemError `subscription_limit`, `unavailable`
   */
  #enter(principal: Principal, reply: FastifyReply): (() => void) | undefined {
    const core = this.#core;
    if (core.service.shutdown.signal.aborted || !core.connected) {
      throw new ProblemError('unavailable', 'This gateway takes no streams now', { retryAfter: 1 });
    }
    if (reply.request.raw.socket.destroyed) return void reply.hijack();
    this.#parts ??= this.#assemble();
    const leaveStreams = this.#places.take(principal);
    try {
      const leaveConnections = core.connections.take(principal);
      return () => {
        leaveStreams();
        leaveConnections();
      };
    } catch (error) {
      leaveStreams();
      throw error;
    }
  }

  /** @throws ProblemError `unauthorized` where the token was revoked since it was verified */
  #assertStands(principal: Principal): void {
    if (this.#core.revocations.isRevoked(principal)) {
      throw new ProblemError('unauthorized', 'The token was revoked');
    }
  }

  #assemble(): SessionParts {
    this.#core.revocations.onRevoked(({ audience, covers }) => {
      for (const stream of this.#streams) {
        const { principal } = stream;
        if (principal.audience === audience && covers(principal)) stream.revoke();
      }
    });
    return sessionParts(this.#core);
  }
}

/** Those of CORS too, which the answer has already. */
function headersOf(reply: FastifyReply): Record<string, string> {
  const headers = Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]);
  return { ...Object.fromEntries(headers), ...STREAM_HEADERS };
}
