/** Whether the other side is still there: pings, and what is expected of the answer. */
import type { Link, State } from './state.js';
import { random, send } from './step.js';
import * as TIMES from './times.js';

export function sendPing(state: State, link: Link, patience: number): void {
  link.pingAt = undefined;
  link.pinged = state.time;
  link.lostAt = Math.min(link.lostAt ?? Infinity, state.time + patience);
  send(state, { action: 'ping' });
}

/** Whatever comes is a sign of life; what was asked is still to be answered. */
export function isAlive({ time: now }: State, link: Link): void {
  const patience = link.streams ? TIMES.streamSilence : link.pingAt === undefined ? TIMES.pong : Infinity;
  link.lostAt = now + patience;
}

/** A ping's answer: the next one is due after a while, sooner where events stand beyond the last place. */
export function plansPing(state: State, link: Link, isBehind: boolean): void {
  link.lostAt = undefined;
  const calm = (state.visible ? TIMES.ping : TIMES.hiddenPing) * (0.9 + random(state) / 5);
  link.pingAt = state.time + (isBehind ? 2 * TIMES.soon : calm);
}

/** There is reason to look whether the connection is there. */
export function doubt(state: State, link: Link): void {
  const patience = (link.streams ? 4 : 1) * TIMES.doubt;
  link.lostAt = Math.min(link.lostAt ?? Infinity, state.time + patience);
  if (link.pingAt !== undefined) sendPing(state, link, TIMES.doubt);
}

/** Asks for a place soon: a pong names it. */
export function placeSoon(state: State, link: Link): void {
  if (link.pingAt === undefined) return;
  link.pingAt = Math.max(state.time, Math.min(link.pingAt, link.pinged + TIMES.soon));
}
