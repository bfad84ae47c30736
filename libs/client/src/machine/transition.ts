/**
 * The life of a client as a function of what happens: `transition(state, event)` changes the state and says what is
 * to be done. It has no timer, no clock, no randomness and no I/O: events carry the time, the state a seed, and
 * `wakeAt` says when a `tick` is due. States, events, effects and invariants: ../../SPEC.md.
 */
import { closed } from '../error.js';
import type { Frame, ServerFrame } from '../frame.js';
import type { ConnectionState } from '../types.js';
import { connect, takeKey } from './attempts.js';
import { takeBroadcast, takeMessage, takeSubscribed } from './delivery.js';
import type { Effect } from './effect.js';
import type { Event } from './event.js';
import {
  becomeLink,
  hangUp,
  look,
  notRenewed,
  takeFailure,
  takeGone,
  takePong,
  takeToken,
  takeWelcome,
} from './link.js';
import { isAlive } from './liveness.js';
import { accept, enqueue, flush, reject, takeRefusal } from './publishes.js';
import type { Link, State } from './state.js';
import { errorOf } from './step.js';
import { endTopic, notBegun, subscribe, takeUnsubscribed, unsubscribe } from './topics.js';
import { doDue } from './wake.js';

/** What is to be done about an event, in this order. The state is changed in place. */
export function transition(state: State, event: Event): readonly Effect[] {
  state.time = event.time;
  state.effects = [];
  if (state.phase === 'closed') afterClose(state, event);
  else {
    apply(state, event);
    if (state.phase === 'running') {
      doDue(state);
      if (state.link?.spent) hangUp(state, state.link);
      flush(state);
    }
    tellState(state);
  }
  return state.effects;
}

/** What is called after the end ends at once. */
function afterClose(state: State, event: Event): void {
  if (event.type === 'publish') reject(state, event.publish.ref, closed());
  if (event.type === 'subscribe')
    state.effects.push({ do: 'ended', listeners: [event.listener], error: closed() });
}

function apply(state: State, event: Event) {
  switch (event.type) {
    case 'start':
      if (state.phase !== 'new') return;
      state.phase = 'running';
      return connect(state);
    case 'tick':
      return;
    case 'token':
      return takeToken(state, event.n, event.token);
    case 'key':
      return takeKey(state, event.n, event.key);
    case 'failed':
      return takeFailure(state, event.n, event.error);
    case 'frame':
      return takeFrame(state, event.n, event.frame, event.expiresIn);
    case 'gone':
      return takeGone(state, event.n, event.code);
    case 'network':
      state.online = event.online;
      // Another network may let WebSockets through.
      if (event.online) state.upgradeAt = event.time;
      return look(state, event.online);
    case 'page':
      state.visible = event.visible;
      if (event.visible) look(state, true);
      return;
    case 'subscribe':
      return subscribe(state, event.topic, event.listener, event.since);
    case 'unsubscribe':
      return unsubscribe(state, event.listener);
    case 'publish':
      return enqueue(state, event.publish);
    case 'posted':
      return accept(state, event.ref, event.receipt);
    case 'refused':
      return takeRefusal(state, event.ref, event.error);
    case 'close':
      return closeAll(state);
  }
}

function takeFrame(state: State, n: number, frame: ServerFrame, expiresIn: number | undefined) {
  const { attempt } = state;
  if (attempt?.n === n && attempt.step === 'opening') {
    if (frame.action === 'welcome') becomeLink(state, attempt, frame);
    // Why it is refused comes before its end.
    else if (frame.action === 'error') attempt.problem = errorOf(frame);
  }
  const { link } = state;
  if (link?.n !== n) return;
  isAlive(state, link);
  switch (frame.action) {
    case 'welcome':
      return takeWelcome(state, link, frame, expiresIn);
    case 'subscribed':
      return takeSubscribed(state, link, frame);
    case 'unsubscribed':
      return takeUnsubscribed(state, link, frame);
    case 'message':
      return takeMessage(state, link, frame);
    case 'broadcast':
      return takeBroadcast(state, link, frame);
    case 'published':
      return accept(state, frame.ref, { id: frame.id, position: frame.position });
    case 'error':
      return takeError(state, link, frame);
    case 'pong':
      return takePong(state, link, frame.position);
    case 'reconnect':
      link.comeBackIn = frame.after_ms;
  }
}

function takeError(state: State, link: Link, frame: Frame<'error'>) {
  const { ref } = frame;
  if (ref === undefined) {
    link.problem = errorOf(frame);
    return;
  }
  if (state.publishes.has(ref)) return takeRefusal(state, ref, errorOf(frame));
  if (ref === link.renewing) return notRenewed(state, link, frame);
  for (const topic of state.topics.values()) {
    if (topic.asked === link.n && topic.ref === ref && !topic.begun)
      return notBegun(state, topic, errorOf(frame));
  }
}

function closeAll(state: State): void {
  for (const each of [state.attempt, state.link]) if (each) state.effects.push({ do: 'drop', n: each.n });
  for (const ref of state.publishes.keys()) reject(state, ref, closed());
  for (const topic of state.topics.values()) endTopic(state, topic, closed());
  state.publishes.clear();
  state.attempt = undefined;
  state.link = undefined;
  state.retryAt = undefined;
  state.phase = 'closed';
}

function tellState(state: State): void {
  const { time: now } = state;
  if (state.phase === 'new') return;
  const told = stateOf(state, now);
  const key = `${told.status} ${state.link?.id ?? ''} ${told.status === 'waiting' ? state.retryAt : ''}`;
  if (key === state.toldState) return;
  state.toldState = key;
  state.effects.push({ do: 'state', state: told });
}

function stateOf({ phase, link, attempt, retryAt, online, problem }: State, now: number): ConnectionState {
  if (phase === 'closed') return { status: 'closed' };
  if (link)
    return { status: 'connected', transport: link.streams ? 'stream' : 'websocket', connection: link.id };
  if (attempt) return { status: 'connecting' };
  if (!online) return { status: 'offline' };
  return { status: 'waiting', retryIn: Math.max(0, (retryAt ?? now) - now), error: problem };
}
