/** What a poll listens to, and under which names its client knows it. */
import {
  assertMaySubscribe,
  countSubscriptions,
  type Finding,
  filtersFor,
  isPattern,
  type Principal,
  ProblemError,
  parseTarget,
  parseTopic,
  ROOM_SCOPES,
  type Target,
} from '@posthorn/contracts';

/** How many channels one poll may have. The topics of one event name in the caller's own room are one. */
const CHANNELS = 128;
const NAMES = ROOM_SCOPES.length * CHANNELS;

/** Path filters, with the channel by which the client asked for each; undefined for a pattern. */
export type Channels = ReadonlyMap<string, string | undefined>;

/**
 * The channels of a request: each `user:…` is dropped, and the caller's own added.
 * @throws ProblemError `request_invalid`; `forbidden`, naming the channel
 */
export function channelsOf(value: unknown, principal: Principal): Channels {
  if (!Array.isArray(value)) throw refuse([{ path: '/channels', message: 'must be a list of texts' }]);
  if (value.length > NAMES) throw tooMany();
  const targets: Target[] = [];
  const errors: Finding[] = [];
  value.forEach((channel: unknown, i) => {
    const path = `/channels/${i}`;
    if (typeof channel !== 'string') errors.push({ path, message: 'must be a text' });
    else if (!isOfUser(channel)) targets.push(...targetOf(channel, path, principal, errors));
  });
  if (errors.length > 0) throw refuse(errors.slice(0, 20));
  if (countSubscriptions(targets, principal) > CHANNELS) throw tooMany();
  const channels = new Map<string, string | undefined>();
  for (const target of targets) {
    if (isPattern(target))
      for (const filter of filtersFor(principal, target)) channels.set(filter, undefined);
    else channels.set(target.path, target.name);
  }
  if (principal.sub !== null) channels.set(parseTopic(`user:${principal.sub}`).path, `user:${principal.sub}`);
  if (channels.size === 0)
    throw refuse([{ path: '/channels', message: 'must name a channel: the token names no user' }]);
  return channels;
}

function isOfUser(channel: string): boolean {
  return /^user[:/.]/.test(channel);
}

/** What a channel stands for; nothing where there is a finding. */
function targetOf(channel: string, path: string, principal: Principal, errors: Finding[]): Target[] {
  try {
    const target = parseTarget(channel, principal);
    assertMaySubscribe(principal, target);
    return [target];
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    if (error.code === 'forbidden') {
      throw new ProblemError('forbidden', `${channel}: ${error.detail}`, {
        errors: [{ path, message: error.detail }],
      });
    }
    errors.push({ path, message: error.detail });
    return [];
  }
}

function tooMany(): ProblemError {
  return refuse([{ path: '/channels', message: `must not have more than ${CHANNELS} elements` }]);
}

function refuse(errors: readonly Finding[]): ProblemError {
  return new ProblemError('request_invalid', 'The channels are not valid', { errors });
}
