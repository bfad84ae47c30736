/** Who may publish and subscribe what: the one home of that policy (docs/protocols/events.md, "Who may do what"). */
import { isPrivileged, type Principal } from './principal.js';
import { ProblemError } from './problem.js';
import { ROOM_SCOPES, roomEventName } from './room.js';
import { coversFilter, matchesFilter, type Scope } from './subject.js';
import {
  hasWildcard,
  hiddenEntry,
  type Pattern,
  parseFilters,
  parsePattern,
  parseTopic,
  type Topic,
} from './topic.js';

/** First segments that belong to the platform: names of theirs that no document lists are reserved too. */
const PLATFORM_NAMESPACES = new Set(['community', 'login', 'invitation', 'usernotification']);
const ROOM_KINDS: ReadonlySet<string> = new Set(ROOM_SCOPES);

/** What a subscription asks for. */
export type Target = Topic | Pattern;

/** Whether a target is a pattern. */
export function isPattern(target: Target): target is Pattern {
  return 'filters' in target;
}

/**
 * What a principal means by a name it subscribes to: a topic, its own notifications where the parameter is
 * hidden, or a pattern. A name that holds `*` or `>` is a pattern unless it is the principal's own topic, or one
 * of the room that it is a member of: users and events of rooms may be called anything.
 * @throws ProblemError `request_invalid`, `forbidden`
 */
export function parseTarget(name: unknown, principal: Principal): Target {
  if (typeof name !== 'string') return parseTopic(name);
  const hidden = hiddenEntry(name);
  if (hidden && isPrivileged(principal)) return { name, filters: parseFilters(name) };
  if (hidden && principal.sub === null) throw forbidden('The token names no user');
  if (hidden || !hasWildcard(name)) return parseTopic(name, principal.sub);
  const literal = tryTopic(name);
  return literal && (owns(principal, literal) || isMembers(principal, literal))
    ? literal
    : parsePattern(name);
}

/** How many subscriptions it takes to hear some targets: one for an event name of the principal's own room. */
export function countSubscriptions(targets: Iterable<Target>, { room }: Principal): number {
  const eventNames = new Set<string>();
  let others = 0;
  for (const target of targets) {
    const eventName = room && !isPattern(target) ? roomEventName(target, room) : undefined;
    if (eventName === undefined) others++;
    else eventNames.add(eventName);
  }
  return others + eventNames.size;
}

/**
 * @param scope where the event would go
 * @throws ProblemError `forbidden`, saying why
 */
export function assertMayPublish(principal: Principal, topic: Topic, scope: Scope): void {
  const reason = publishRefusal(principal, topic, scope);
  if (reason) throw forbidden(reason);
}

/**
 * Whether a principal may notify (docs/protocols/tryton.md): a user itself, and the client whose id it knows, which
 * is the only way in which end users publish there.
 * @param topic `user:{sub}` or `client:{id}`
 * @throws ProblemError `forbidden`, saying why
 */
export function assertMayNotify(principal: Principal, topic: Topic): void {
  if (!isPrivileged(principal) && topic.entry?.access === 'owner' && !owns(principal, topic)) {
    throw forbidden('Another user is notified by role service or admin');
  }
  if (narrowed(principal, 'publish', topic))
    throw forbidden("The token's permissions do not hold this topic");
}

/** @throws ProblemError `forbidden`, saying why */
export function assertMaySubscribe(principal: Principal, target: Target): void {
  const reason = isPattern(target) ? patternRefusal(principal, target) : subscribeRefusal(principal, target);
  if (reason) throw forbidden(reason);
}

/** Whether an event that a pattern took may go to its subscriber: a user's pattern never takes what is reserved. */
export function mayReceive(principal: Principal, topic: Topic): boolean {
  return subscribeRefusal(principal, topic) === undefined;
}

/** Whether {@link assertMayPublish} lets it pass. */
export function mayPublish(principal: Principal, topic: Topic, scope: Scope): boolean {
  return publishRefusal(principal, topic, scope) === undefined;
}

/** The filters a principal's pattern really listens on: a user has no business with keyed topics of others. */
export function filtersFor(principal: Principal, pattern: Pattern): readonly string[] {
  return isPrivileged(principal) ? pattern.filters : pattern.filters.slice(0, 1);
}

/** Whether a principal may use `schema`, `retention`, `durable`, `scope` and the other calls for services. */
export function assertPrivileged(principal: Principal, what: string): void {
  if (!isPrivileged(principal)) throw forbidden(`${what} is for role service or admin`);
}

function publishRefusal(principal: Principal, topic: Topic, scope: Scope): string | undefined {
  // Where NATS has permissions, the notifier alone has that for them: the versions of inboxes count on it.
  if (topic.segments[0] === 'usernotification') return 'Notifications are published by the notifier';
  if (!isPrivileged(principal)) {
    if (scope === 'local') return 'End users have no local scope';
    const access = topic.entry?.access;
    if (access && access !== 'open') return `${topic.entry!.name} is published by the platform`;
    if (inPlatformNamespace(topic)) return 'The topic belongs to the platform';
    const room = roomRefusal(principal, topic, 'publish');
    if (room) return room;
  }
  return narrowed(principal, 'publish', topic) ? "The token's permissions do not hold this topic" : undefined;
}

function subscribeRefusal(principal: Principal, topic: Topic): string | undefined {
  if (!isPrivileged(principal)) {
    const { entry } = topic;
    if (entry?.access === 'platform' && !entry.scopes.includes('global')) {
      return `${entry.name} is local to the platform`;
    }
    if (entry?.access === 'owner' && !owns(principal, topic)) return `${entry.name} belongs to another user`;
    if (!entry && inPlatformNamespace(topic)) return 'The topic belongs to the platform';
    const room = roomRefusal(principal, topic, 'subscribe');
    if (room) return room;
  }
  return narrowed(principal, 'subscribe', topic)
    ? "The token's permissions do not hold this topic"
    : undefined;
}

function patternRefusal(principal: Principal, pattern: Pattern): string | undefined {
  const held = filtersOf(principal, 'subscribe');
  if (!held) return isPrivileged(principal) ? undefined : 'Patterns need a permission';
  const covered = filtersFor(principal, pattern).every((filter) =>
    held.some((outer) => coversFilter(outer, filter)),
  );
  return covered ? undefined : "The token's permissions do not hold this pattern";
}

function owns(principal: Principal, topic: Topic): boolean {
  const claim = topic.entry?.parameter?.owner;
  return claim !== undefined && topic.key !== null && principal[claim] === topic.key;
}

/** Whether a topic is of the room whose member the principal is. A service sees rooms from outside. */
function isMembers(principal: Principal, topic: Topic): boolean {
  const { room } = principal;
  return room !== undefined && !isPrivileged(principal) && roomEventName(topic, room) !== undefined;
}

function inPlatformNamespace(topic: Topic): boolean {
  return PLATFORM_NAMESPACES.has(topic.segments[0]!);
}

function roomRefusal(
  principal: Principal,
  topic: Topic,
  action: 'publish' | 'subscribe',
): string | undefined {
  const [first, kind, id] = topic.segments;
  if (first !== 'room' || kind === undefined || !ROOM_KINDS.has(kind)) return undefined;
  const { room } = principal;
  if (!room) return 'The token names no room';
  if (kind === 'event' && id !== room.event_id) return "The token is for another event's rooms";
  if (kind === 'session' && id !== room.session_id) return 'The token is for another room';
  if (action === 'publish' && kind !== 'session') {
    const held = filtersOf(principal, 'publish');
    if (!held?.some((filter) => matchesFilter(filter, topic.path))) {
      return `A member publishes to its ${kind} only with a permission that says so`;
    }
  }
  return undefined;
}

function narrowed(principal: Principal, action: 'publish' | 'subscribe', topic: Topic): boolean {
  const held = filtersOf(principal, action);
  return held !== undefined && !held.some((filter) => matchesFilter(filter, topic.path));
}

/** Parsed permissions, kept for as long as the principal lives. */
const parsed = new WeakMap<readonly string[], readonly string[]>();

function filtersOf(principal: Principal, action: 'publish' | 'subscribe'): readonly string[] | undefined {
  const patterns = principal.permissions?.[action];
  if (!patterns) return undefined;
  let filters = parsed.get(patterns);
  if (!filters) {
    filters = patterns.flatMap((pattern) => {
      try {
        return parseFilters(pattern);
      } catch {
        // A pattern that is none opens nothing.
        return [];
      }
    });
    parsed.set(patterns, filters);
  }
  return filters;
}

function tryTopic(name: string): Topic | undefined {
  try {
    return parseTopic(name);
  } catch {
    return undefined;
  }
}

function forbidden(reason: string): ProblemError {
  return new ProblemError('forbidden', reason);
}
