/** What documents say of an entry of the catalogue: its topic's name, its subjects, who may do what. */
import type { Role } from '../principal.js';
import type { RoomScope } from '../room.js';
import { encodeToken, type Scope } from '../subject.js';
import type { CatalogueEntry } from './entry.js';

/** Who may do something: roles, and in words. A token's permissions narrow it. */
export interface Rule {
  readonly roles: readonly Role[];
  readonly text: string;
}

const SERVICES: Rule = { roles: ['service', 'admin'], text: 'role service or admin' };
/** An inbox's own topics: their versions count on the one that publishes them. */
const NOTIFIER: Rule = { roles: [], text: 'the notifier alone' };
const MEMBERS: Rule = { roles: ['user', 'service', 'admin'], text: 'any member of the audience' };

/** The topic's name with its parameter in braces: `personal.{username}`. */
export function templateName({ name, separator, parameter }: CatalogueEntry): string {
  return parameter && !parameter.hidden ? `${name}${separator ?? ':'}{${parameter.name}}` : name;
}

/** The NATS subject of an entry in each of its scopes, with `<…>` for what differs. */
export function subjectsOf(entry: CatalogueEntry): Partial<Record<Scope, string>> {
  const { parameter } = entry;
  const key = !parameter ? '-' : parameter.secret ? `<SHA-256 of ${parameter.name}>` : `<${parameter.name}>`;
  return subjectsAt(`${key}.${entry.name.split(/[:/.]/).map(encodeToken).join('.')}`, entry.scopes);
}

/** The NATS subject of a path in each scope, with `<…>` for what differs. */
export function subjectsAt(path: string, scopes: readonly Scope[]): Partial<Record<Scope, string>> {
  const all = { global: `ph.<audience>.global.${path}`, local: `ph.<audience>.local.<instance>.${path}` };
  return Object.fromEntries(scopes.map((scope) => [scope, all[scope]]));
}

/** Who may publish on an entry's topic, and who may subscribe to it (docs/protocols/events.md, "Who may do what"). */
export function rulesOf({ access, scopes, parameter }: CatalogueEntry): { publish: Rule; subscribe: Rule } {
  const roles = MEMBERS.roles;
  switch (access) {
    case 'platform':
      return { publish: SERVICES, subscribe: platformSubscribers(scopes) };
    case 'owner': {
      const where = parameter?.hidden ? `is the payload's \`${parameter.name}\`` : 'ends the name';
      const text = `the user whose \`${parameter?.owner}\` ${where}; role service or admin`;
      return { publish: parameter?.hidden ? NOTIFIER : SERVICES, subscribe: { roles, text } };
    }
    case 'secret':
      return {
        publish: SERVICES,
        subscribe: { roles, text: `whoever knows the \`${parameter?.name}\`; role service or admin` },
      };
    case 'open':
      return { publish: MEMBERS, subscribe: MEMBERS };
  }
}

function platformSubscribers(scopes: readonly Scope[]): Rule {
  if (!scopes.includes('global')) return SERVICES;
  if (!scopes.includes('local')) return MEMBERS;
  return { roles: MEMBERS.roles, text: `${MEMBERS.text} on global; ${SERVICES.text} on local too` };
}

const IN_ROOM: Rule = { roles: MEMBERS.roles, text: 'members of the room; role service or admin' };
const PERMITTED: Rule = {
  roles: MEMBERS.roles,
  text: 'members with a permission for it; role service or admin',
};

/** Who may use the topics of rooms, by how far they reach. */
export const ROOM_RULES: Readonly<Record<RoomScope, { publish: Rule; subscribe: Rule }>> = {
  organization: { publish: PERMITTED, subscribe: IN_ROOM },
  event: { publish: PERMITTED, subscribe: IN_ROOM },
  session: { publish: IN_ROOM, subscribe: IN_ROOM },
};

/** Who may use a topic that the catalogue does not have, by what the policy says of an ordinary member. */
export function rulesFor(
  kind: 'room' | 'plain',
  member: { publish: boolean; subscribe: boolean },
): { publish: Rule; subscribe: Rule } {
  const rule = (may: boolean) => (may ? MEMBERS : kind === 'room' ? IN_ROOM : SERVICES);
  return { publish: rule(member.publish), subscribe: rule(member.subscribe) };
}
