/** Publishes, from their call to their end: in order, and each stored at most once. */
import { isPassing, PosthornError } from '../error.js';
import type { Receipt } from '../types.js';
import type { Draft } from './event.js';
import type { Publish, State } from './state.js';
import { backoff, isTokenEnded } from './step.js';
import * as TIMES from './times.js';

/** Publishes on their way at once. */
const WINDOW = 128;

export function enqueue(state: State, draft: Draft) {
  const { time: now } = state;
  if (state.publishes.size >= state.options.queueLimit) {
    return reject(state, draft.ref, new PosthornError('queue_full', 'Too many wait'));
  }
  state.publishes.set(draft.ref, {
    ...draft,
    called: now,
    via: 0,
    by: now + state.options.publishTimeout,
    notBefore: 0,
    failures: 0,
    post: draft.bytes > state.options.frameLimit,
    unanswered: false,
  });
}

/** Sends what is due, in the order of the calls. */
export function flush(state: State): void {
  const { time: now } = state;
  const { link } = state;
  if (!link || state.publishes.size === 0) return;
  let sent = 0;
  let posted = false;
  for (const { via } of state.publishes.values()) {
    if (via > 0) sent++;
    posted ||= via < 0;
  }
  // What the server refused for the moment holds back what was called after it: that would overtake it.
  const held = new Set<boolean>();
  for (const publish of state.publishes.values()) {
    const isBroadcast = publish.topic === undefined;
    if (publish.via < 0 && !publish.post) held.add(isBroadcast);
    if (publish.via) continue;
    if (publish.notBefore > now) held.add(isBroadcast);
    if (held.has(isBroadcast)) continue;
    if (publish.post || link.streams) {
      if (posted || awaitsStream(state, publish)) {
        if (link.streams) return;
        continue;
      }
      posted = true;
      leaves(state, publish, -1);
      state.effects.push({ do: 'post', publish });
    } else if (sent < WINDOW) {
      sent++;
      leaves(state, publish, link.n);
      state.effects.push({ do: 'send', n: link.n, text: frameOf(publish) });
    }
  }
}

/** Whether a publish has to wait until the topics subscribed to before it are heard. */
export function awaitsStream(state: State, { called }: Publish): boolean {
  if (!state.link?.streams || state.time - called >= TIMES.hold) return false;
  for (const topic of state.topics.values()) {
    if (!(topic.begun && topic.asked === state.link.n) && topic.retryAt === undefined) return true;
  }
  return false;
}

export function leaves(state: State, publish: Publish, via: number): void {
  publish.via = via;
  publish.notBefore = 0;
  publish.sent ??= state.time;
  publish.by = Math.min(publish.by, publish.sent + TIMES.repeat);
}

/** What was on its way on a connection is to be sent again; what never may be is given up. */
export function takeBack(state: State, n: number, tooLarge = false): void {
  let largest: Publish | undefined;
  for (const publish of state.publishes.values()) {
    if (publish.via !== n) continue;
    publish.via = 0;
    publish.unanswered = true;
    if (!largest || publish.bytes > largest.bytes) largest = publish;
    if (!publish.repeat) expire(state, publish);
  }
  if (tooLarge && largest) largest.post = true;
}

export function accept(state: State, ref: string, receipt: Receipt): void {
  if (state.publishes.delete(ref)) state.effects.push({ do: 'accepted', ref, receipt });
}

export function takeRefusal(state: State, ref: string, error: PosthornError) {
  const publish = state.publishes.get(ref);
  if (!publish) return;
  publish.via = 0;
  const { code } = error;
  // A token that ended is followed by another; without an answer it may have been stored.
  const ofToken = isTokenEnded(code);
  if (ofToken) state.bad = state.token;
  const unanswered = code === 'network' || code === 'timeout';
  if (unanswered) publish.unanswered = true;
  else publish.problem = error;
  if (!publish.repeat) return expire(state, publish);
  if (!ofToken && !isPassing(error)) return giveUp(state, publish, error);
  const wait = backoff(state, Math.min(publish.failures++, 3));
  publish.notBefore = state.time + Math.max(wait, TIMES.backoff / 4, error.retryAfter ?? 0);
}

/** Gives a publish up, and says what is known of it. */
export function expire(state: State, publish: Publish): void {
  const { unanswered, via, problem } = publish;
  if (unanswered || via) {
    giveUp(state, publish, new PosthornError('unconfirmed', 'It may be stored'));
  } else giveUp(state, publish, problem ?? new PosthornError('unsent', 'No connection'));
}

export function giveUp(state: State, { ref }: Publish, error: PosthornError): void {
  state.publishes.delete(ref);
  reject(state, ref, error);
}

export function reject(state: State, ref: string, error: PosthornError): void {
  state.effects.push({ do: 'rejected', ref, error });
}

function frameOf({ topic, id, ref, text }: Draft): string {
  return `{${actionOf(topic)},"id":${JSON.stringify(id)},"ref":"${ref}","message":${text}}`;
}

/** How the JSON of a publish, or of a broadcast, begins. */
export function actionOf(topic: string | undefined): string {
  return topic === undefined ? '"action":"broadcast"' : `"action":"publish","topic":${JSON.stringify(topic)}`;
}
