/** What a stream listens to, and under which names its client knows it. */
import {
  assertMaySubscribe,
  BROADCAST,
  CATALOGUE,
  countSubscriptions,
  coversFilter,
  type Finding,
  filtersFor,
  isPattern,
  isPrivileged,
  mayReceive,
  ownTopic,
  type Principal,
  ProblemError,
  parseTarget,
  parseTopic,
  ROOM_SCOPES,
  type Target,
  type Topic,
} from '@posthorn/contracts';

export interface Interest {
  /** Path filters; none takes all that another does. */
  readonly filters: readonly string[];
  /** Topics by path, as they were asked for; for a pattern there is none. */
  readonly names: ReadonlyMap<string, string>;
}

const GENERAL = '__general__';
const BROADCAST_TOPIC = parseTopic(BROADCAST);

/**
 * The topics that a client names, and broadcasts. A template of the caller's own may come without its parameter.
 * @param names by the JSON pointer at which each was given
 * @throws ProblemError `request_invalid`; `forbidden`, naming the topic; `subscription_limit`
 */
export function interestIn(
  names: ReadonlyMap<string, string>,
  principal: Principal,
  limit: number,
): Interest {
  const targets = new Map<string, Target>();
  const errors: Finding[] = [];
  for (const [path, name] of names) {
    // A list that is far too long is not read to its end.
    if (targets.size > ROOM_SCOPES.length * limit || errors.length >= 20) break;
    try {
      const target = targetOf(name, principal);
      assertMaySubscribe(principal, target);
      targets.set(isPattern(target) ? target.filters.join(' ') : target.path, target);
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      const finding = { path, message: error.detail };
      if (error.code === 'forbidden') {
        throw new ProblemError('forbidden', `${name}: ${error.detail}`, { errors: [finding] });
      }
      errors.push(finding);
    }
  }
  if (errors.length > 0) throw new ProblemError('request_invalid', 'The topics are not valid', { errors });
  if (countSubscriptions(targets.values(), principal) > limit) {
    throw new ProblemError('subscription_limit', `A stream may have ${limit} topics`);
  }
  return interestOf([...targets.values()], principal);
}

/** What concerns the caller: public announcements, and its own topics of the catalogue that go by its username. */
export function interestByDefault(principal: Principal): Interest {
  const own = [...CATALOGUE.values()].filter(({ parameter }) => parameter?.owner === 'username');
  return interestInOwn([GENERAL, ...own.map(({ name }) => name)], principal);
}

/** Of some topics of the catalogue, those that the caller may hear; of templates its own. */
export function interestInOwn(names: readonly string[], principal: Principal): Interest {
  const topics = names.flatMap(
    (name) => ownOf(name, principal) ?? (CATALOGUE.get(name)?.parameter ? [] : parseTopic(name)),
  );
  return interestOf(
    topics.filter((topic) => mayReceive(principal, topic)),
    principal,
  );
}

/** Whether a caller may have an event of a stream: only of what a pattern takes that is not said already. */
export function receives(principal: Principal, { names }: Interest) {
  const all = isPrivileged(principal);
  return (topic: Topic, path: string) => all || names.has(path) || mayReceive(principal, topic);
}

function targetOf(name: string, principal: Principal): Target {
  return ownOf(name, principal) ?? parseTarget(name, principal);
}

/** The caller's own topic of a template's name. */
function ownOf(name: string, principal: Principal): Topic | undefined {
  const { owner, hidden } = CATALOGUE.get(name)?.parameter ?? {};
  const key = owner && !hidden ? principal[owner] : null;
  return key ? ownTopic(name, key) : undefined;
}

function interestOf(targets: readonly Target[], principal: Principal): Interest {
  const names = new Map<string, string>();
  const filters = new Set<string>();
  for (const target of targets) {
    if (isPattern(target)) {
      for (const filter of filtersFor(principal, target)) filters.add(filter);
    } else {
      names.set(target.path, target.name);
      filters.add(target.path);
    }
  }
  if (mayReceive(principal, BROADCAST_TOPIC)) {
    names.set(BROADCAST_TOPIC.path, BROADCAST);
    filters.add(BROADCAST_TOPIC.path);
  }
  const all = [...filters];
  const isCovered = (filter: string) => all.some((outer) => outer !== filter && coversFilter(outer, filter));
  return { filters: all.filter((filter) => !isCovered(filter)), names };
}
