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
    if (topic.since === undefined || recovered === false) topic.start = place;
    for (const group of topic.groups) {
      const { reader } = group;
      if (reader.resumeAt === undefined) restart(reader, place, position);
      else if (recovered === false) lostHistory(state, topic, group, place, position);
      if (group.waiting.length > 0) tellReady(state, group.waiting, reader.resumeAt);
      group.waiting = [];
    }
    // What came ahead of a beginning follows it; what came ahead of missed events waits for them.
    if (topic.since === undefined || topic.pattern) release(state, topic);
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
    release(state, pattern);
    const start = precedent(pattern, begun, info);
    if (lacks(pattern, start)) {
      hold(state, link, pattern, info, message, start);
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

export function hold(
  state: State,
  link: Link,
  topic: Topic,
  info: EventInfo,
  message: unknown,
  start?: Place,
): void {
  topic.held.push({ info, message, start });
  placeSoon(state, link);
  if (topic.held.length > HELD) link.spent = true;
}

/** Delivers what was held back, where everything before it has come, as a place says or the readers' own. */
export function release(state: State, topic: Topic, upTo?: Place): void {
  for (const each of topic.held.splice(0)) {
    const { start } = each;
    const isPast = start && upTo && (upTo.epoch !== start.epoch || upTo.sequence >= start.sequence);
    if (!isPast && lacks(topic, start)) topic.held.push(each);
    else deliver(state, topic, each.info, each.message);
  }
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

/**
 * The place up to which a pattern has to be complete before it is given an event. A subscription that began on this
 * connection without what came before brings what is new, while the pattern is still given what is older: what it
 * missed, or what the server mends later, since each subscription of a topic is kept in order by itself.
 */
function precedent(pattern: Topic, begun: readonly Topic[], { topic, position }: EventInfo) {
  const place = placeOf(position);
  let last: Place | undefined;
  // Nor does it overtake what waits already.
  for (const each of [...begun, ...pattern.held.filter(({ info }) => info.topic === topic)]) {
    const { start } = each;
    if (each === pattern || !start || !place || !isBeyond(place, start)) continue;
    if (!last || isBeyond(start, last)) last = start;
  }
  return last;
}

/** Whether somebody has not had everything up to a place. */
function lacks({ groups }: Topic, place: Place | undefined): boolean {
  return !!place && groups.some(({ reader }) => !covers(reader, place));
}
