/** What every part of the machine does while it takes an event: it says, sends, counts and draws. */
import { PosthornError } from '../error.js';
import type { Frame } from '../frame.js';
import type { State } from './state.js';
import * as TIMES from './times.js';

const TOKEN_ENDED: readonly unknown[] = ['unauthorized', 'token_expired'];

export function report(state: State, error: PosthornError): void {
  state.effects.push({ do: 'error', error });
}

export function send(state: State, frame: object): void {
  const { link } = state;
  if (link) state.effects.push({ do: 'send', n: link.n, text: JSON.stringify(frame) });
}

export function newRef(state: State): string {
  return `s${++state.count}`;
}

/** Mulberry32: the next number of the seed's, in [0, 1). */
export function random(state: State): number {
  state.seed = (state.seed + 0x6d2b79f5) | 0;
  let t = state.seed;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
}

export function backoff(state: State, failures: number): number {
  return random(state) * Math.min(TIMES.longest, TIMES.backoff * 2 ** Math.min(failures, 10));
}

export function isTokenEnded(code: string | undefined): boolean {
  return TOKEN_ENDED.includes(code);
}

export function errorOf({ code, detail, errors }: Frame<'error'>): PosthornError {
  return new PosthornError(code, detail, { errors });
}
