/** What is done at its time, and when that is. */
import { PosthornError } from '../error.js';
import { abandon, connect } from './attempts.js';
import { hangUp, renew } from './link.js';
import { sendPing } from './liveness.js';
import { expire } from './publishes.js';
import type { Link, State } from './state.js';
import * as TIMES from './times.js';
import { askAll } from './topics.js';

/** When a `tick` is due, unless something else happens before. */
export function wakeAt(state: State, now: number): number {
  const { attempt, link, retryAt, restreamAt, phase, publishes, topics } = state;
  if (phase !== 'running') return Infinity;
  let at = Math.min(attempt?.by ?? Infinity, attempt ? Infinity : (retryAt ?? Infinity));
  // What could be done by now and was not, waits for something else.
  const later = (time: number | undefined) => {
    if (time !== undefined && time > now) at = Math.min(at, time);
  };
  if (link) {
    at = Math.min(at, link.pingAt ?? Infinity, link.lostAt ?? Infinity, link.renewAt ?? Infinity);
    if (!attempt) at = Math.min(at, restreamAt ?? Infinity, canUpgrade(state) ? state.upgradeAt : Infinity);
    for (const topic of topics.values()) later(topic.retryAt);
  }
  for (const publish of publishes.values()) {
    at = Math.min(at, publish.by);
    if (!link || publish.via) continue;
    later(publish.notBefore);
    if (link.streams) later(publish.called + TIMES.hold);
  }
  return at;
}

/** Does what its time has come for. */
export function doDue(state: State): void {
  const { time: now } = state;
  const { attempt, link } = state;
  if (attempt && now >= attempt.by) {
    state.effects.push({ do: 'drop', n: attempt.n });
    const code = attempt.step === 'token' ? 'token_failed' : 'timeout';
    abandon(state, attempt, new PosthornError(code, 'No answer'));
  }
  if (link && state.link === link) doDueOn(state, link);
  if (state.retryAt !== undefined && now >= state.retryAt && !state.attempt) connect(state);
  for (const publish of state.publishes.values()) if (now >= publish.by) expire(state, publish);
}

function doDueOn(state: State, link: Link) {
  const { time: now } = state;
  if (link.lostAt !== undefined && now >= link.lostAt) {
    // Told of it late, this process stood still: what has come meanwhile is not yet read.
    if (now - link.lostAt < TIMES.doubt) {
      link.problem ??= new PosthornError('timeout', 'No answer');
      return hangUp(state, link);
    }
    link.lostAt = now + TIMES.doubt;
  }
  if (link.pingAt !== undefined && now >= link.pingAt) sendPing(state, link, TIMES.pong);
  if (link.renewAt !== undefined && now >= link.renewAt) renew(state, link);
  if (!link.streams) askAll(state, link);
  else if (!state.attempt) {
    if (state.restreamAt !== undefined && now >= state.restreamAt) connect(state, true);
    else if (canUpgrade(state) && now >= state.upgradeAt) connect(state, false);
  }
}

function canUpgrade({ link, options }: State): boolean {
  return !!link?.streams && options.transports.includes('websocket');
}
