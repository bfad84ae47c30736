/** The polls of this gateway: how many wait for whom, until when, and what ends them. */
import type { IncomingMessage } from 'node:http';
import { Injectable } from '@nestjs/common';
import { mayReceive, type Principal, ProblemError, principalId } from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import type { PollRequest } from '../../hub/hub.js';
import type { Poll, PollAnswer } from '../../hub/poll.js';

interface Waiting {
  readonly principal: Principal;
  readonly poll: Poll;
  /** Ends it with an error instead. */
  readonly fail: (error: ProblemError) => void;
}

@Injectable()
export class WaitingPolls {
  readonly #core: GatewayCore;
  readonly #waiting = new Set<Waiting>();
  readonly #perUser = new Map<string, number>();
  #watched = false;

  constructor(core: GatewayCore) {
    this.#core = core;
    // Answered at once, paced by nothing: a poll that comes again finds another gateway, and is one request.
    core.service.shutdown.on('stop accepting', 'polls', () => {
      for (const { poll } of this.#waiting) poll.end();
    });
  }

  /**
   * Waits for the next event of a caller, for as long as a poll may: until its time is over, its token expires, the
   * gateway drains, or the client hangs up.
   * @throws ProblemError `subscription_limit`, `unauthorized` where the token is revoked meanwhile, `unavailable`
   */
  async next(
    principal: Principal,
    request: Pick<PollRequest, 'filters' | 'since'>,
    peer: IncomingMessage,
  ): Promise<PollAnswer> {
    const { hub, wheel, config, metrics, service } = this.#core;
    this.#watchRevocations();
    const user = JSON.stringify([principal.audience, principalId(principal)]);
    const already = this.#perUser.get(user) ?? 0;
    if (already >= config.pollLimit) {
      throw new ProblemError('subscription_limit', `A user may have ${config.pollLimit} polls waiting`);
    }
    const poll = hub.poll({
      ...request,
      audience: principal.audience,
      recent: config.busCache,
      mayReceive: (topic) => mayReceive(principal, topic),
    });
    let fail = (_: ProblemError) => {};
    const revoked = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const waiting: Waiting = { principal, poll, fail };
    const gone = () => {
      metrics.pollAnswers.gone.inc();
      poll.end();
    };
    const now = Date.now();
    const end = Math.min(now + config.busTimeout, (principal.expiresAt ?? Number.POSITIVE_INFINITY) * 1_000);
    const timer = wheel.at(end, () => poll.end());
    const { socket } = peer;
    const idle = socket.timeout ?? 0;
    // It is silent because there is nothing to say.
    socket.setTimeout(0);
    socket.once('close', gone);
    this.#waiting.add(waiting);
    this.#perUser.set(user, already + 1);
    metrics.polls.inc();
    try {
      if (service.shutdown.signal.aborted) poll.end();
      return await Promise.race([poll.answer, revoked]);
    } finally {
      poll.end();
      timer.cancel();
      socket.off('close', gone);
      socket.setTimeout(idle);
      this.#waiting.delete(waiting);
      const left = this.#perUser.get(user)! - 1;
      if (left > 0) this.#perUser.set(user, left);
      else this.#perUser.delete(user);
      metrics.polls.dec();
    }
  }

  #watchRevocations(): void {
    if (this.#watched) return;
    this.#watched = true;
    this.#core.revocations.onRevoked(({ audience, covers }) => {
      for (const { principal, fail } of this.#waiting) {
        if (principal.audience === audience && covers(principal)) {
          fail(new ProblemError('unauthorized', 'The token was revoked'));
        }
      }
    });
  }
}
