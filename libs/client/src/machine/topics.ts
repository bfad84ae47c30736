/** Subscriptions: what is asked for on a connection, and from where. */
import { isPassing, PosthornError } from '../error.js';
import type { Frame } from '../frame.js';
import { covers, isAt, newReader, type Reader } from '../place.js';
import { BROADCAST, isPattern, takes, topicName } from '../topic.js';
import type { Group, Link, State, Topic } from './state.js';
import { backoff, newRef, send } from './step.js';
import * as TIMES from './times.js';

export function subscribe(state: State, name: string, listener: number, since: string | undefined): void {
  const topic = topicName(name);
  let known = state.topics.get(topic.key);
  if (!known) {
    known = {
      name: topic,
      wire: name,
      pattern: isPattern(name),
      groups: [],
      asked: 0,
      last: 0,
      leaving: 0,
      askedAt: 0,
      leftAt: 0,
      ref: '',
      begun: false,
      failures: 0,
      lags: false,
      held: [],
    };
    state.topics.set(topic.key, known);
  }
  const { groups } = known;
  const [first] = groups;
  const same = since === undefined ? first : groups.find(({ reader }) => isAt(reader, since));
  if (same) {
    same.listeners = [...same.listeners, listener];
    if (known.begun && isOnLink(state, known)) tellReady(state, [listener], same.reader.resumeAt);
    else same.waiting.push(listener);
  } else {
    const reader = newReader(since, known.pattern);
    const group: Group = { reader, listeners: [listener], waiting: [] };
    groups.push(group);
    const missed = known.pattern || !covers(reader, first?.reader.floor);
    if (first && known.begun && isOnLink(state, known) && !missed) tellReady(state, [listener], since);
    else {
      group.waiting.push(listener);
      // What is asked for already begins later: it is asked for again, from there.
      for (const each of state.topics.values()) {
        if (each !== known && (since === undefined || each.groups.length === 0 || !shares(known, each)))
          continue;
        each.asked = 0;
        each.begun = false;
      }
    }
  }
  askSoon(state);
}

export function unsubscribe(state: State, listener: number): void {
  const other = (one: number) => one !== listener;
  for (const topic of state.topics.values()) {
    const at = topic.groups.findIndex(({ listeners }) => listeners.includes(listener));
    const group = topic.groups[at];
    if (!group) continue;
    group.listeners = group.listeners.filter(other);
    group.waiting = group.waiting.filter(other);
    if (group.listeners.length > 0) return;
    topic.groups.splice(at, 1);
    if (topic.groups.length > 0) return;
    topic.leftAt = ++state.count;
    if (!isOnLink(state, topic)) return void state.topics.delete(topic.name.key);
    // What is still on its way is known by it.
    if (state.link?.streams) state.restreamAt ??= state.time + TIMES.soon;
    else {
      topic.leaving++;
      send(state, { action: 'unsubscribe', topic: topic.wire, ref: newRef(state) });
    }
    return;
  }
}

export function isOnLink(state: State, topic: Topic): boolean {
  return topic.asked !== 0 && topic.asked === state.link?.n;
}

/** Asks for what is not asked for on the connection: at once, or with a stream that begins soon. */
export function askSoon(state: State): void {
  const { link } = state;
  if (link) askAll(state, link);
}

export function askAll(state: State, link: Link) {
  if (link.streams) {
    for (const { asked, retryAt } of state.topics.values()) {
      if (asked < link.n)
        state.restreamAt = Math.min(state.restreamAt ?? Infinity, retryAt ?? state.time + TIMES.gather);
    }
    return;
  }
  const due = [...state.topics.values()].filter(
    ({ asked, retryAt, groups }) =>
      groups.length > 0 && asked !== link.n && !(retryAt !== undefined && retryAt > state.time),
  );
  for (const topic of due) {
    // What has come on a connection it will not bring again: another one does.
    if (topic.name.key === BROADCAST && oldestOf(topic.groups) !== undefined) {
      if (link.announced || link.resumed) {
        link.spent = true;
        return;
      }
      link.resumed = true;
    }
    // Whatever has become of what was asked before: it ends, and keeps nothing from what is asked for now.
    if (topic.last === link.n) {
      topic.leaving++;
      send(state, { action: 'unsubscribe', topic: topic.wire, ref: newRef(state) });
    }
  }
  // Topics first: what patterns share with them is theirs to deliver.
  for (const topic of due.sort((a, b) => Number(a.pattern) - Number(b.pattern))) {
    ask(state, topic, link.n);
    send(state, { action: 'subscribe', topic: topic.wire, since: topic.since, ref: topic.ref });
  }
}

export function ask(state: State, topic: Topic, n: number): void {
  topic.asked = n;
  if (topic.last !== n) {
    topic.held = [];
    topic.leaving = 0;
  }
  topic.last = n;
  topic.begun = false;
  topic.retryAt = undefined;
  topic.ref = newRef(state);
  topic.askedAt = state.count;
  topic.since = placeFor(state, topic);
  topic.start = undefined;
  topic.lags = topic.pattern && topic.since !== undefined;
}

/**
 * Where a topic is asked for from. What a pattern shares with a topic, or with another pattern, one of them delivers
 * for both: so from the place of the one that is further behind.
 */
export function placeFor(state: State, topic: Topic): string | undefined {
  if (oldestOf(topic.groups) === undefined) return undefined;
  const groups = [...topic.groups];
  for (const other of state.topics.values()) if (shares(other, topic)) groups.push(...other.groups);
  return oldestOf(groups);
}

export function notBegun(state: State, topic: Topic, error: PosthornError) {
  if (!isPassing(error) && error.code !== 'internal') return endTopic(state, topic, error);
  topic.asked = 0;
  topic.begun = false;
  if (topic.name.key === BROADCAST && state.link) state.link.resumed = false;
  const wait = backoff(state, ++topic.failures);
  topic.retryAt = state.time + TIMES.backoff / 2 + wait;
  askSoon(state);
}

/** The server ends a subscription of its own accord; why, it has said before. */
export function takeUnsubscribed(
  state: State,
  link: Link,
  { topic: name, ref }: Frame<'unsubscribed'>,
): void {
  const topic = state.topics.get(topicName(name).key);
  if (!topic || topic.last !== link.n) return;
  if (ref !== undefined) topic.leaving = Math.max(0, topic.leaving - 1);
  if (topic.leaving === 0 && topic.groups.length === 0) state.topics.delete(topic.name.key);
  // What ends before the server comes to our own word is what that would have ended.
  if (ref !== undefined || topic.leaving > 0 || topic.asked !== link.n) return;
  const error = link.problem ?? new PosthornError('unavailable', `${name} was ended`);
  link.problem = undefined;
  notBegun(state, topic, error);
}

export function endTopic(state: State, topic: Topic, error: PosthornError): void {
  state.topics.delete(topic.name.key);
  const listeners = topic.groups.flatMap((group) => group.listeners);
  state.effects.push({ do: 'ended', listeners, error });
}

export function unask(state: State): void {
  forgetUnheard(state);
  for (const topic of state.topics.values()) {
    topic.asked = 0;
    topic.begun = false;
    topic.retryAt = undefined;
  }
}

/** Forgets topics that nobody hears any more. */
export function forgetUnheard(state: State): void {
  for (const [key, { groups }] of state.topics) if (groups.length === 0) state.topics.delete(key);
}

export function tellReady(state: State, listeners: readonly number[], position: string | undefined): void {
  state.effects.push({ do: 'ready', listeners, position });
}

/** Whether a pattern may deliver what another subscription would, too. */
export function shares(pattern: Topic, other: Topic): boolean {
  if (!pattern.pattern || pattern === other) return false;
  return other.pattern || takes(pattern.name.segments, other.name);
}

/** Where all of a topic's groups can be resumed from; undefined where none has a place. */
export function oldestOf(groups: readonly Group[]): string | undefined {
  let oldest: Reader | undefined;
  for (const { reader } of groups) {
    if (reader.resumeAt === undefined) continue;
    // Of another epoch than the first, it is from before.
    if (!oldest || !covers(reader, oldest.floor)) oldest = reader;
  }
  return oldest?.resumeAt;
}
