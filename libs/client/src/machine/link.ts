/** The present connection, from its welcome to its end. */
import { PosthornError } from '../error.js';
import type { Frame } from '../frame.js';
import { placeOf, settle } from '../place.js';
import { abandon, attemptWith, connect, planRetry, waitForNext } from './attempts.js';
import { release } from './delivery.js';
import { doubt, plansPing } from './liveness.js';
import { takeBack } from './publishes.js';
import type { Attempt, Link, State } from './state.js';
import { backoff, errorOf, isTokenEnded, newRef, random, report, send } from './step.js';
import * as TIMES from './times.js';
import { askAll, forgetUnheard, unask } from './topics.js';

/** A token for the attempt that there is, or to renew the one of the connection. */
export function takeToken(state: State, n: number, token: string) {
  const { attempt, link } = state;
  if (attempt?.n === n) return attemptWith(state, attempt, token);
  if (link?.n !== n || link.renewing !== '') return;
  state.token = token;
  link.renewing = newRef(state);
  send(state, { action: 'auth', token, ref: link.renewing });
}

export function takeFailure(state: State, n: number, error: PosthornError) {
  const { attempt, link } = state;
  if (attempt?.n === n) return abandon(state, attempt, error);
  if (link?.n !== n || link.renewing !== '') return;
  report(state, error);
  link.renewing = undefined;
  link.renewAt = state.time + backoff(state, 1) + TIMES.doubt;
}

/** An attempt becomes the connection, in the place of the one before. */
export function becomeLink(
  state: State,
  { n, streams }: Attempt,
  { connection: id }: Frame<'welcome'>,
): void {
  const { time: now } = state;
  const before = state.link;
  if (before) {
    state.effects.push({ do: 'drop', n: before.n });
    takeBack(state, before.n);
  }
  state.attempt = undefined;
  state.problem = undefined;
  state.retryAt = undefined;
  state.bad = undefined;
  if (!streams) {
    state.refusals = 0;
    state.streaming = false;
    state.restreamAt = undefined;
  } else if (!before?.streams) state.upgradeAt = now + TIMES.upgrade;
  state.link = {
    n,
    streams,
    id,
    opened: now,
    pingAt: streams ? undefined : now + TIMES.soon * (2 + random(state)),
    pinged: now,
    announced: false,
    spent: false,
  };
  forgetUnheard(state);
  for (const topic of state.topics.values()) {
    topic.begun = false;
    topic.retryAt = undefined;
    if (topic.asked !== n) topic.asked = 0;
  }
  askAll(state, state.link);
}

export function takeWelcome(
  state: State,
  link: Link,
  frame: Frame<'welcome'>,
  expiresIn: number | undefined,
): void {
  const { connection, audience, expires, room } = frame;
  link.renewing = undefined;
  // A clock that is wrong says that a token has ended which the server has just accepted.
  link.renewAt =
    expiresIn === undefined
      ? undefined
      : state.time +
        (expiresIn > 0
          ? Math.max(expiresIn - Math.min(TIMES.renewal, expiresIn / 5), TIMES.soon)
          : TIMES.renewal * (1 + random(state)));
  state.effects.push({ do: 'welcome', welcome: { connection, audience, expires, room } });
}

export function takePong(state: State, link: Link, position: string | undefined): void {
  let behind = false;
  for (const topic of state.topics.values()) {
    if (topic.asked !== link.n || !topic.begun) continue;
    if (position === undefined) {
      behind ||= topic.pattern || topic.held.length > 0;
      continue;
    }
    release(state, topic, placeOf(position));
    for (const { reader } of topic.groups) settle(reader, position);
    behind ||= topic.held.length > 0;
  }
  if (!link.streams) plansPing(state, link, behind);
}

export function renew(state: State, link: Link): void {
  link.renewAt = undefined;
  if (link.streams) {
    state.bad = state.token;
    state.restreamAt = state.time;
    if (!state.attempt) connect(state, true);
    return;
  }
  link.renewing = '';
  state.effects.push({ do: 'token', n: link.n, not: state.token });
}

export function notRenewed(state: State, link: Link, frame: Frame<'error'>): void {
  link.renewing = undefined;
  report(state, errorOf(frame));
  if (frame.code !== 'forbidden') {
    link.renewAt = state.time + backoff(state, 2) + TIMES.doubt;
    return;
  }
  // It is somebody else's: the connection is, too.
  hangUp(state, link);
  if (!state.attempt) connect(state);
}

/** There is reason to look whether the connection is there, or time to have one. */
export function look(state: State, good: boolean): void {
  const { link, retryAt, imposed } = state;
  if (link) doubt(state, link);
  else if (good && retryAt !== undefined && !imposed) connect(state);
}

export function takeGone(state: State, n: number, code: number) {
  const { attempt, link } = state;
  if (attempt?.n === n) {
    const refused = code === 4401 ? 'unauthorized' : 'network';
    const error = attempt.problem ?? new PosthornError(refused, 'Refused');
    return abandon(state, attempt, error, code);
  }
  if (link?.n === n) lose(state, link, code);
}

export function hangUp(state: State, link: Link): void {
  state.effects.push({ do: 'drop', n: link.n });
  lose(state, link, 1000);
}

/** The connection is over. */
export function lose(state: State, link: Link, code: number): void {
  state.link = undefined;
  state.restreamAt = undefined;
  if (code === 4401 || isTokenEnded(link.problem?.code)) state.bad = state.token;
  if (state.time - link.opened >= TIMES.stable) state.failures = 0;
  takeBack(state, link.n, code === 1009);
  state.problem = link.problem;
  if (link.problem) report(state, link.problem);
  // One that was to take its place goes on by itself.
  if (state.attempt) return;
  unask(state);
  if (link.comeBackIn !== undefined) planRetry(state, link.comeBackIn, true);
  else waitForNext(state, undefined, code);
}
