/** Attempts at a connection: a token, a key, a socket or a stream, and how long to wait after one that failed. */

import type { PosthornError } from '../error.js';
import type { Wanted } from './effect.js';
import type { Attempt, State } from './state.js';
import { backoff, isTokenEnded, random, report } from './step.js';
import * as TIMES from './times.js';
import { ask, forgetUnheard, unask } from './topics.js';

/** Sockets refused in a row, while HTTP works, after which a client streams. */
const REFUSALS = 2;

/** Begins an attempt, beside the present connection where there is one. */
export function connect(state: State, streams = state.streaming): void {
  state.retryAt = undefined;
  state.imposed = false;
  const n = ++state.count;
  state.attempt = { n, streams, step: 'token', by: state.time + TIMES.token };
  state.effects.push({ do: 'token', n, not: state.bad });
}

/** A token came: the next step of the attempt. */
export function attemptWith(state: State, attempt: Attempt, token: string) {
  if (attempt.step !== 'token') return;
  state.token = token;
  if (attempt.streams) return openStream(state, attempt, token);
  attempt.step = 'sign';
  attempt.by = state.time + TIMES.sign;
  state.effects.push({ do: 'sign', n: attempt.n, token });
}

export function takeKey(state: State, n: number, key: string): void {
  const { attempt } = state;
  if (attempt?.n !== n || attempt.step !== 'sign') return;
  awaitWelcome(state, attempt);
  state.effects.push({ do: 'socket', n, key });
}

function openStream(state: State, attempt: Attempt, token: string) {
  awaitWelcome(state, attempt);
  state.restreamAt = undefined;
  forgetUnheard(state);
  const subscriptions: Wanted[] = [];
  for (const topic of state.topics.values()) {
    ask(state, topic, attempt.n);
    subscriptions.push({ topic: topic.wire, since: topic.since, ref: topic.ref });
  }
  state.effects.push({ do: 'stream', n: attempt.n, token, subscriptions });
}

function awaitWelcome(state: State, attempt: Attempt): void {
  attempt.step = 'opening';
  attempt.by = state.time + TIMES.opening;
}

/** Ends an attempt that came to nothing, and says when the next one is. */
export function abandon(state: State, attempt: Attempt, error: PosthornError, code?: number) {
  state.attempt = undefined;
  const ofToken = isTokenEnded(error.code);
  if (ofToken) state.bad = state.token;
  if (state.link) {
    // It was to take the place of a connection that goes on.
    if (attempt.streams) state.restreamAt = state.time + TIMES.soon + backoff(state, ++state.failures);
    else state.upgradeAt = state.time + TIMES.upgrade;
    return;
  }
  unask(state);
  state.problem = error;
  report(state, error);
  const opened = attempt.step === 'opening';
  if (!attempt.streams) state.refusals = opened ? state.refusals + 1 : 0;
  if (opened && state.options.transports.length > 1 && state.refusals >= REFUSALS) {
    // A stream that cannot be had either says that it is not about WebSockets.
    state.streaming = !attempt.streams;
    state.refusals = state.streaming ? state.refusals : 0;
    if (state.streaming) return planRetry(state, 0);
  }
  // One that was kept may have ended meanwhile: the next is had at once.
  if (ofToken && state.failures++ === 0) return planRetry(state, 0);
  waitForNext(state, error, code);
}

/** Waits for the next attempt, as long as how the last one ended asks for. */
export function waitForNext(state: State, error: PosthornError | undefined, code?: number): void {
  let wait = backoff(state, state.failures++);
  if (code === 1008) wait = Math.max(wait, TIMES.slow * (0.5 + random(state) / 2));
  else if (error?.status === 403 || error?.status === 404) wait = Math.max(wait, TIMES.doubt);
  const unwatched = !state.visible && state.failures > 1;
  if (unwatched || !state.online) wait = Math.max(wait, TIMES.slow * (0.5 + random(state) / 2));
  const least = error?.retryAfter ?? 0;
  planRetry(state, Math.max(wait, least), least > 0 || code === 1008);
}

export function planRetry(state: State, wait: number, imposed = false): void {
  state.retryAt = state.time + wait;
  state.imposed = imposed;
}
