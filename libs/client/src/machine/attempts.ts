/** Attempts at a connection: a token, a key, a socket or a stream, and how long to wait after one that failed. */
import type { Transport } from '../types.js';
import type { Wanted } from './effect.js';
import type { Failure } from './event.js';
import type { Attempt, State } from './state.js';
import { backoff, errorOf, isTokenEnded, random, report } from './step.js';
import * as TIMES from './times.js';
import { ask, forgetUnheard, unask } from './topics.js';

/** Sockets refused in a row, while HTTP works, after which a client streams. */
const REFUSALS = 2;

/** Begins an attempt, beside the present connection where there is one. */
export function connect(
  state: State,
  transport: Transport = state.streaming ? 'stream' : (state.options.transports[0] as Transport),
): void {
  state.retryAt = undefined;
  state.imposed = false;
  const n = ++state.count;
  state.attempt = { n, transport, step: 'token', by: state.now + TIMES.token, error: undefined };
  state.effects.push({ do: 'token', n, not: state.bad });
}

/** A token came: the next step of the attempt. */
export function attemptWith(state: State, attempt: Attempt, token: string) {
  if (attempt.step !== 'token') return;
  state.token = token;
  if (attempt.transport === 'stream') return openStream(state, attempt, token);
  attempt.step = 'sign';
  attempt.by = state.now + TIMES.sign;
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
  attempt.by = state.now + TIMES.opening;
}

/** Ends an attempt that came to nothing, and says when the next one is. */
export function abandon(state: State, attempt: Attempt, failure: Failure, code?: number) {
  state.attempt = undefined;
  const error = errorOf(failure);
  const ofToken = isTokenEnded(failure.code);
  if (ofToken) state.bad = state.token;
  if (state.link) {
    // It was to take the place of a connection that goes on.
    if (attempt.transport === 'websocket') state.upgradeAt = state.now + TIMES.upgrade;
    else state.restreamAt = state.now + TIMES.soon + backoff(state, ++state.failures);
    return;
  }
  unask(state);
  state.error = error;
  report(state, error);
  const opened = attempt.step === 'opening';
  if (attempt.transport === 'websocket') state.refusals = opened ? state.refusals + 1 : 0;
  const [first, second] = state.options.transports;
  if (opened && second && state.refusals >= REFUSALS) {
    // A stream that cannot be had either says that it is not about WebSockets.
    state.streaming = attempt.transport === 'websocket' ? second === 'stream' : first === 'stream';
    state.refusals = state.streaming ? state.refusals : 0;
    if (state.streaming) return planRetry(state, 0);
  }
  // One that was kept may have ended meanwhile: the next is had at once.
  if (ofToken && state.failures++ === 0) return planRetry(state, 0);
  waitForNext(state, failure, code);
}

/** Waits for the next attempt, as long as how the last one ended asks for. */
export function waitForNext(state: State, failure: Failure | undefined, code?: number): void {
  let wait = backoff(state, state.failures++);
  if (code === 1008) wait = Math.max(wait, TIMES.slow * (0.5 + random(state) / 2));
  else if (failure?.status === 403 || failure?.status === 404) wait = Math.max(wait, TIMES.doubt);
  const unwatched = !state.visible && state.failures > 1;
  if (unwatched || !state.online) wait = Math.max(wait, TIMES.slow * (0.5 + random(state) / 2));
  const least = failure?.retryAfter ?? 0;
  planRetry(state, Math.max(wait, least), least > 0 || code === 1008);
}

export function planRetry(state: State, wait: number, imposed = false): void {
  state.retryAt = state.now + wait;
  state.imposed = imposed;
}
