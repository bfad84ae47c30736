/**
 * The table of docs/protocols/esn.md, "Notification worker", one function for each row: what an event wants.
 * Nothing here looks anywhere but at the payload.
 */
import type { EventPayload } from '@posthorn/bus/nest';
import { findId, idOf, ProblemError, type UserNotification } from '@posthorn/contracts';

/** What a notification says: the same for each of its recipients. */
export type Content = Pick<
  UserNotification,
  | 'subject'
  | 'verb'
  | 'complement'
  | 'context'
  | 'description'
  | 'icon'
  | 'category'
  | 'interactive'
  | 'action'
  | 'title'
  | 'level'
  | 'data'
>;

/** The recipients that the platform knows and the payload does not: who manages a community. */
export interface ManagersOf {
  readonly community: string;
  /** Whoever caused the event is not told of it. */
  readonly except?: string;
}

/** A notification and who gets it. */
export interface Notice {
  readonly content: Content;
  /** Each once. */
  readonly recipients: readonly string[] | ManagersOf;
}

/** A user's invitation into a community was made or taken back. */
export interface InvitationChange {
  readonly kind: 'made' | 'cancelled';
  readonly community: string;
  readonly target: string;
}

/** A user has become a member of a community, or is one no longer. */
export interface MembershipChange {
  readonly community: string;
  readonly user: string;
  readonly present: boolean;
}

/** What an event asks of the worker. */
export interface Wanted {
  readonly notice?: Notice;
  readonly invitation?: InvitationChange;
  readonly membership?: MembershipChange;
}

/** The longest id of a user or a community, in bytes: a topic's parameter cannot be longer. */
export const ID_BYTES = 255;

type CommunityPayload = EventPayload<'community:leave'>;

/** `community:join`: an accepted request is told to its author, any other new member to the managers. */
export function joined(payload: EventPayload<'community:join'>): Wanted {
  const membership = membershipOf(payload, true);
  if (payload.actor === 'manager') {
    return {
      membership,
      notice: {
        content: aboutCommunity(payload, {
          category: 'community:membership:accepted',
          verb: { label: 'ESN_MEMBERSHIP_ACCEPTED', text: 'accepted your request to join' },
        }),
        recipients: [membership.user],
      },
    };
  }
  return {
    membership,
    notice: {
      content: aboutCommunity(payload, {
        category: 'community:join',
        verb: { label: 'ESN_COMMUNITY_JOIN', text: 'has joined' },
      }),
      recipients: managersOf(payload, idOf(payload.author)),
    },
  };
}

/** `community:leave`: nobody is notified. */
export function left(payload: CommunityPayload): Wanted {
  return { membership: membershipOf(payload, false) };
}

/** `community:membership:invite` */
export function invited(payload: EventPayload<'community:membership:invite'>): Wanted {
  const invitation = invitationOf(payload, 'made');
  return {
    invitation,
    notice: {
      content: aboutCommunity(payload, {
        category: 'community:membership:invite',
        verb: { label: 'ESN_MEMBERSHIP_INVITE', text: 'has invited you in' },
        interactive: true,
      }),
      recipients: [invitation.target],
    },
  };
}

/** `community:membership:request` */
export function requested(payload: EventPayload<'community:membership:request'>): Wanted {
  return {
    notice: {
      content: aboutCommunity(payload, {
        category: 'community:membership:request',
        verb: { label: 'ESN_MEMBERSHIP_REQUEST', text: 'requested membership on' },
        interactive: true,
      }),
      recipients: managersOf(payload),
    },
  };
}

/** `community:membership:invitation:cancel`: takes the open invite back, and makes no new notification. */
export function invitationCancelled(payload: EventPayload<'community:membership:invitation:cancel'>): Wanted {
  return { invitation: invitationOf(payload, 'cancelled') };
}

/** `community:membership:request:refuse` */
export function requestRefused(payload: EventPayload<'community:membership:request:refuse'>): Wanted {
  return {
    notice: {
      content: aboutCommunity(payload, {
        category: 'community:membership:refused',
        verb: { label: 'ESN_MEMBERSHIP_REFUSED', text: 'declined your request to join' },
      }),
      recipients: [key('target', payload.target)],
    },
  };
}

/** `notification:external` */
export function external(payload: EventPayload<'notification:external'>): Wanted {
  const { target, action, author, object, context, link, icon, title, level, data } = payload;
  const targets = Array.isArray(target) ? target : [target];
  return {
    notice: {
      content: {
        subject: { objectType: 'user', id: author === undefined ? '' : idOf(author) },
        verb: { label: action, text: action },
        complement: object === undefined ? { objectType: 'string', id: '' } : reference(object, 'string'),
        context: context === undefined ? null : reference(context, 'community'),
        description: null,
        icon: icon ? { objectType: 'icon', id: icon } : null,
        category: 'external',
        interactive: false,
        action: link ? [{ url: link, display: { label: 'ESN_LINK', text: 'link' } }] : [],
        ...(title === undefined ? {} : { title }),
        ...(level === undefined ? {} : { level }),
        ...(data === undefined ? {} : { data }),
      },
      recipients: keys('target', targets),
    },
  };
}

function aboutCommunity(
  { author, community }: CommunityPayload,
  { category, verb, interactive = false }: Pick<Content, 'category' | 'verb'> & { interactive?: boolean },
): Content {
  return {
    subject: { objectType: 'user', id: idOf(author) },
    verb,
    complement: { objectType: 'community', id: key('community', community) },
    context: null,
    description: null,
    icon: { objectType: 'icon', id: 'fa-users' },
    category,
    interactive,
    action: [],
  };
}

function managersOf({ community, managers }: CommunityPayload, except?: string): Notice['recipients'] {
  if (managers) return keys('managers', managers).filter((manager) => manager !== except);
  return { community: key('community', community), ...(except === undefined ? {} : { except }) };
}

function membershipOf({ community, target }: CommunityPayload, present: boolean): MembershipChange {
  return { community: key('community', community), user: key('target', target), present };
}

function invitationOf(
  { community, target }: CommunityPayload,
  kind: InvitationChange['kind'],
): InvitationChange {
  return { kind, community: key('community', community), target: key('target', target) };
}

function reference(value: unknown, objectType: string): { objectType: string; id: string } {
  const own = (value as { objectType?: unknown }).objectType;
  return { objectType: typeof own === 'string' && own !== '' ? own : objectType, id: idOf(value) };
}

export function keys(member: string, values: readonly unknown[]): string[] {
  return [...new Set(values.map((value) => key(member, value)))];
}

/** An id that becomes a key: of a topic, or of a row. */
function key(member: string, value: unknown): string {
  const id = findId(value);
  if (id === undefined) throw new ProblemError('payload_invalid', `/${member} holds no id`);
  if (Buffer.byteLength(id) > ID_BYTES) {
    throw new ProblemError('payload_invalid', `/${member} holds an id of more than ${ID_BYTES} bytes`);
  }
  return id;
}
