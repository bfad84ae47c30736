/** Events on their way to listeners: each once, in the order of its topic. */
import type { Frame } from '../frame.js';
import { isBeyond, placeOf, take } from '../place.js';
import { BROADCAST, takes, topicName } from '../topic.js';
import type { EventInfo } from '../types.js';
import { placeSoon } from './liveness.js';
import type { Link, State, Topic } from './state.js';
import { isOnLink, oldestOf } from './topics.js';

/** Events of patterns beyond the last place, after which a place is asked for. */
const PLACE_AFTER = 256;
/** Events that may wait for those before them. */
const HELD = 1_000;

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
  // Live ones come from the welcome on; missed ones, which stand before them, only once they were asked for.
  if (!topic.begun && oldestOf(topic.groups) !== undefined) {
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

/** Whether an event comes by a subscription that began on this connection, without a place of its own. */
function isFrom({ since, start }: Topic, position: string | undefined): boolean {
  const place = placeOf(position);
  return since === undefined && !!start && !!place && isBeyond(place, start);
}
