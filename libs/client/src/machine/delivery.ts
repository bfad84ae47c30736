/** Events on their way to listeners: each once, in the order of its topic. */
import type { Frame } from '../frame.js';
import { covers, isBeyond, type Place, placeOf, restart, take } from '../place.js';
import { BROADCAST, takes, topicName } from '../topic.js';
import type { EventInfo } from '../types.js';
import { placeSoon } from './liveness.js';
import type { Group, Link, State, Topic } from './state.js';
import { isOnLink, tellReady } from './topics.js';

/** Events of patterns beyond the last place, after which a place is asked for. */
const PLACE_AFTER = 256;
/** Events that may wait for those before them. */
const HELD = 1_000;

export function takeSubscribed(state: State, link: Link, frame: Frame<'subscribed'>): void {
  for (const topic of state.topics.values()) {
    if (topic.asked !== link.n || topic.ref !== frame.ref || topic.begun) continue;
    const { position, recovered } = frame;
    topic.begun = true;
    topic.failures = 0;
    const place = placeOf(position);
    if (topic.since === undefined) topic.start = place;
    for (const group of topic.groups) {
      const { reader } = group;
      if (reader.resumeAt === undefined) restart(reader, place, position);
      else if (recovered === false) lostHistory(state, topic, group, place, position);
      if (group.waiting.length > 0) tellReady(state, group.waiting, reader.resumeAt);
      group.waiting = [];
    }
    // What came ahead of a beginning follows it; what came ahead of missed events waits for them.
    if (topic.since === undefined) release(state, topic);
    else if (topic.held.length > 0) placeSoon(state, link);
    return;
  }
}

/** Tells those whose history is lost, and goes on from where the server does. */
export function lostHistory(
  state: State,
  topic: Topic,
  { reader, listeners }: Group,
  place: Place | undefined,
  position?: string,
): void {
  const { resumeAt: since } = reader;
  if (since === undefined || (since !== topic.since && covers(reader, place))) return;
  restart(reader, place, position);
  state.effects.push({ do: 'gap', listeners, gap: { topic: topic.wire, since, position } });
}

export function takeMessage(
  state: State,
  link: Link,
  { topic: name, id, position, message }: Frame<'message'>,
): void {
  const { topics } = state;
  const topic = topicName(name);
  const info: EventInfo = { id, position, topic: name };
  const exact = topics.get(topic.key);
  const isBegun = (each: Topic | undefined) => each?.begun === true && isOnLink(state, each);
  const patterns: Topic[] = [];
  for (const each of topics.values())
    if (each.pattern && takes(each.name.segments, topic)) patterns.push(each);
  if (exact && isBegun(exact)) deliver(state, exact, info, message);
  // What one delivers, the others that are being resumed will not be given again.
  else if (!patterns.some(isBegun)) return;
  const begun = [...patterns, exact].filter(isBegun) as Topic[];
  for (const pattern of patterns) {
    if (!begun.some((other) => other === pattern || feeds(state, other, pattern))) continue;
    // One that began now brings what is new while another one is still given what it missed of the same topic.
    if (
      (pattern.lags || !isBegun(pattern)) &&
      begun.some((other) => other !== pattern && isFrom(other, position))
    ) {
      hold(state, link, pattern, info, message);
      continue;
    }
    deliver(state, pattern, info, message);
    if ((pattern.groups[0]?.reader.seen?.size ?? 0) >= PLACE_AFTER) placeSoon(state, link);
  }
}

export function takeBroadcast(state: State, link: Link, { id, position, message }: Frame<'broadcast'>): void {
  link.announced = true;
  const topic = state.topics.get(BROADCAST);
  if (!topic) return;
  const info: EventInfo = { id, position, topic: BROADCAST };
  // Live ones come from the welcome on: where the topic begins, and what was missed, is said later.
  if (!topic.begun) {
    hold(state, link, topic, info, message);
    return;
  }
  const place = placeOf(position);
  const next = placeOf(topic.held[0]?.info.position);
  if (place && next && isBeyond(place, next)) release(state, topic);
  deliver(state, topic, info, message);
}

export function hold(state: State, link: Link, topic: Topic, info: EventInfo, message: unknown): void {
  topic.held.push({ info, message });
  placeSoon(state, link);
  if (topic.held.length > HELD) link.spent = true;
}

/** Delivers what was held back: everything before it has come. */
export function release(state: State, topic: Topic): void {
  for (const { info, message } of topic.held.splice(0)) deliver(state, topic, info, message);
}

export function deliver(state: State, topic: Topic, info: EventInfo, message: unknown): void {
  for (const { reader, listeners } of topic.groups) {
    // What has not begun anywhere begins with the server's word.
    if (!topic.begun && reader.resumeAt === undefined) continue;
    if (take(reader, info.position)) state.effects.push({ do: 'deliver', listeners, message, info });
  }
}

/**
 * Whether a pattern gets what another subscription brings. Not what comes of one that was left before the pattern
 * was asked for: the pattern is given all of it by itself.
 */
function feeds(state: State, other: Topic, pattern: Topic): boolean {
  return other.groups.length > 0 || (isOnLink(state, pattern) && pattern.askedAt < other.leftAt);
}

/** Whether an event comes by a subscription that began on this connection, without a place of its own. */
function isFrom({ since, start }: Topic, position: string | undefined): boolean {
  const place = placeOf(position);
  return since === undefined && !!start && !!place && isBeyond(place, start);
}
