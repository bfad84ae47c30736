/** The event streams of this gateway: how many of whom, and what ends them. */
import { Injectable } from '@nestjs/common';
import { type Cursor, type Principal, ProblemError, principalId } from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { Connections } from '../../drain.js';
import { BLOCK_END, retryLine } from './blocks.js';
import { EventStream } from './event-stream.js';
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
  readonly #streams: Connections<EventStream>;
  readonly #perUser = new Map<string, number>();
  #watched = false;

  constructor(core: GatewayCore) {
    this.#core = core;
    this.#streams = new Connections(core.config.drainBudget);
    core.service.shutdown.on('finish in flight', 'streams', (overdue) => this.#streams.drain(overdue));
  }

  /**
   * Answers with a stream; resolves once it has begun.
   * @throws ProblemError `subscription_limit`; `unavailable`; `unauthorized` where the token was revoked meanwhile
   */
  async open({ principal, ...request }: StreamRequest, reply: FastifyReply): Promise<void> {
    const core = this.#core;
    if (core.service.shutdown.signal.aborted || !core.connected) {
      throw new ProblemError('unavailable', 'This gateway takes no streams now', { retryAfter: 1 });
    }
    // Its client has hung up while its token was verified, say: that is not told again.
    if (reply.request.raw.socket.destroyed) return void reply.hijack();
    this.#watchRevocations();
    const user = JSON.stringify([principal.audience, principalId(principal)]);
    const already = this.#perUser.get(user) ?? 0;
    if (already >= core.config.streamLimit) {
      throw new ProblemError('subscription_limit', `A user may have ${core.config.streamLimit} streams open`);
    }
    this.#perUser.set(user, already + 1);
    const stream = new EventStream({
      core,
      principal,
      ...request,
      response: reply.raw,
      closed: (gone) => {
        const left = this.#perUser.get(user)! - 1;
        if (left > 0) this.#perUser.set(user, left);
        else this.#perUser.delete(user);
        this.#streams.remove(gone);
      },
    });
    const start = await stream.started;
    if (stream.ended) return void reply.hijack();
    if (core.revocations.isRevoked(principal)) {
      throw new ProblemError('unauthorized', 'The token was revoked');
    }
    this.#streams.add(stream);
    reply.hijack();
    stream.open(start, headersOf(reply));
    if (core.service.shutdown.signal.aborted) stream.sendElsewhere(this.#streams.pause());
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

  #watchRevocations(): void {
    if (this.#watched) return;
    this.#watched = true;
    this.#core.revocations.onRevoked(({ audience, covers }) => {
      for (const stream of this.#streams) {
        const { principal } = stream;
        if (principal.audience === audience && covers(principal)) stream.end('tokenRevoked');
      }
    });
  }
}

/** Those of CORS too, which the answer has already. */
function headersOf(reply: FastifyReply): Record<string, string> {
  const headers = Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]);
  return { ...Object.fromEntries(headers), ...STREAM_HEADERS };
}
