/** The polls of this gateway: how many wait for whom, until when, and what ends them. */
import type { IncomingMessage } from 'node:http';
import { Injectable } from '@nestjs/common';
import { isPrivileged, mayReceive, type Principal, ProblemError, principalId } from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { awaitOn } from '../../http/awaited.js';
import { Buckets } from '../../http/buckets.js';
import type { PollRequest } from '../../hub/hub.js';
import type { Poll, PollAnswer } from '../../hub/poll.js';
import { tooFast } from '../../session/limits.js';

interface Waiting {
  readonly principal: Principal;
  readonly poll: Poll;
  /** Ends it with an error instead. */
  readonly fail: (error: ProblemError) => void;
}

/** How many different channels all waiting polls of one user may have: each is two subscriptions at NATS. */
const CHANNELS = 1_024;

/** What one user's polls take. */
class Share {
  polls = 0;
  /** How many of them have a channel. */
  readonly #channels = new Map<string, number>();

  /** Whether there is room for as many channels. */
  takes(filters: readonly string[]): boolean {
    const more = filters.filter((filter) => !this.#channels.has(filter));
    return this.#channels.size + more.length <= CHANNELS;
  }

  enter(filters: readonly string[]): void {
    this.polls++;
    for (const filter of filters) this.#channels.set(filter, (this.#channels.get(filter) ?? 0) + 1);
  }

  leave(filters: readonly string[]): void {
    this.polls--;
    for (const filter of filters) {
      const left = this.#channels.get(filter)! - 1;
      if (left > 0) this.#channels.set(filter, left);
      else this.#channels.delete(filter);
    }
  }
}

@Injectable()
export class WaitingPolls {
  readonly #core: GatewayCore;
  readonly #waiting = new Set<Waiting>();
  readonly #perUser = new Map<string, Share>();
  readonly #rate: Buckets;
  #watched = false;

  constructor(core: GatewayCore) {
    this.#core = core;
    this.#rate = new Buckets(core.config.pollRate, core.config.pollBurst);
    // Answered at once, paced by nothing: a poll that comes again finds another gateway, and is one request.
    core.service.shutdown.on('stop accepting', 'polls', () => {
      for (const { poll } of this.#waiting) poll.end();
    });
  }

  /**
   * Counts a poll, before anything is done for it. Services and admins are not limited.
   * @throws ProblemError `rate_limited`
   */
  admit(principal: Principal): void {
    if (isPrivileged(principal)) return;
    const user = JSON.stringify([principal.audience, principalId(principal)]);
    const seconds = this.#rate.take(user, performance.now());
    if (seconds > 0) throw tooFast(seconds);
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
    const { hub, wheel, config, metrics, revocations, service } = this.#core;
    this.#watchRevocations();
    const user = JSON.stringify([principal.audience, principalId(principal)]);
    const share = this.#perUser.get(user) ?? new Share();
    if (share.polls >= config.pollLimit) {
      throw new ProblemError('subscription_limit', `A user may have ${config.pollLimit} polls waiting`);
    }
    if (!share.takes(request.filters)) {
      throw new ProblemError('subscription_limit', `A user's polls may wait on ${CHANNELS} channels`);
    }
    const poll = hub.poll({
      ...request,
      audience: principal.audience,
      owner: user,
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
    const answered = awaitOn(socket, gone);
    this.#waiting.add(waiting);
    this.#perUser.set(user, share);
    share.enter(request.filters);
    metrics.polls.inc();
    try {
      // While its token was verified, say.
      if (socket.destroyed) gone();
      if (revocations.isRevoked(principal)) throw new ProblemError('unauthorized', 'The token was revoked');
      if (service.shutdown.signal.aborted) poll.end();
      return await Promise.race([poll.answer, revoked]);
    } finally {
      poll.end();
      timer.cancel();
      answered();
      this.#waiting.delete(waiting);
      share.leave(request.filters);
      if (share.polls === 0) this.#perUser.delete(user);
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
