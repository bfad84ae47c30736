/** What the body of `POST /v1/stream` asks for (docs/protocols/inthe-am.md, "Event stream"). */
import {
  BROADCAST,
  countSubscriptions,
  type Finding,
  isPattern,
  type Principal,
  ProblemError,
  parseCursor,
  parseTarget,
  ROOM_SCOPES,
  type Target,
} from '@posthorn/contracts';
import { objectBody } from '../../http/body.js';
import { type ClientFrame, checkClientFrame } from '../../session/client-frame.js';

type Subscribe = ClientFrame & { action: 'subscribe' };

/**
 * The frames by which a socket would ask the same; an answer is told by its topic where the client gives no `ref`.
 * Whether a topic may be subscribed to is not judged here.
 * @param limit how many subscriptions a connection may have
 * @throws ProblemError `request_invalid`, `subscription_limit`
 */
export function framesOf(body: unknown, principal: Principal, limit: number): readonly Subscribe[] {
  const { subscriptions, broadcasts } = objectBody(body);
  const errors: Finding[] = [];
  const frames: Subscribe[] = [];
  const add = (member: object, path: string) => {
    try {
      const frame = checkClientFrame({ ...member, action: 'subscribe' }) as Subscribe;
      if (frame.since === undefined || parseCursor(frame.since)) frames.push({ ref: frame.topic, ...frame });
      else errors.push({ path: `${path}/since`, message: NO_PLACE });
    } catch (error) {
      const findings = error instanceof ProblemError ? error.errors : undefined;
      if (!findings) throw error;
      errors.push(...findings.map((finding) => ({ ...finding, path: path + finding.path })));
    }
  };
  if (typeof broadcasts === 'string' && parseCursor(broadcasts)) {
    frames.push({ action: 'subscribe', topic: BROADCAST, since: broadcasts, ref: BROADCAST });
  } else if (broadcasts !== undefined) errors.push({ path: '/broadcasts', message: NO_PLACE });
  if (!Array.isArray(subscriptions)) errors.push({ path: '/subscriptions', message: 'must be a list' });
  // However many of them name the same: each is a frame to take.
  else if (subscriptions.length > ROOM_SCOPES.length * limit) throw tooMany(limit);
  else {
    for (const [i, member] of subscriptions.entries()) {
      const path = `/subscriptions/${i}`;
      if (typeof member === 'object' && member !== null && !Array.isArray(member)) add(member, path);
      else errors.push({ path, message: 'must be an object' });
      if (errors.length >= 20) break;
    }
  }
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', 'The body does not have the expected form', { errors });
  }
  if (countOf(frames, principal, limit) > limit) throw tooMany(limit);
  return frames;
}

const NO_PLACE = 'must be a position or cursor as the server gave it';

function tooMany(limit: number): ProblemError {
  return new ProblemError('subscription_limit', `A stream may have ${limit} subscriptions`);
}

/** As the connection will count them; what is no name is refused by and by. Counted no further than has to be. */
function countOf(frames: readonly Subscribe[], principal: Principal, limit: number): number {
  const targets = new Map<string, Target>();
  const refused = new Set<string>();
  for (const { topic } of frames) {
    if (targets.size + refused.size > ROOM_SCOPES.length * limit) break;
    try {
      const target = parseTarget(topic, principal);
      targets.set(isPattern(target) ? target.filters.join(' ') : target.path, target);
    } catch {
      refused.add(topic);
    }
  }
  return countSubscriptions(targets.values(), principal) + refused.size;
}
