/** The topics of docs/protocols/esn.md. */
import { type Static, Type } from '@sinclair/typebox';
import { defineTopics } from './entry.js';
import { Id } from './ids.js';
import { AnyObject, Nullable, ObjectType } from './shapes.js';

/** Milliseconds since 1970, or a date as text: producers send `Date.now()` and serialised dates. */
const Moment = Type.Union([Type.Number(), Type.String({ minLength: 1 })]);

const communityData = {
  author: Id,
  target: Id,
  community: Id,
  /** Goes before the managers that the platform keeps for the community. */
  managers: Type.Optional(Type.Array(Id)),
};
const CommunityEvent = Type.Object(communityData);
const CommunityJoin = Type.Object({ ...communityData, actor: Type.Optional(Type.String()) });
const MembershipEvent = Type.Object({ ...communityData, membership: Type.Optional(AnyObject) });

const InvitationFailure = Type.Object({ invitation: AnyObject, error: Type.Unknown() });

const MessageActivity = Type.Union([
  Type.Object({
    verb: Type.String({ minLength: 1 }),
    language: Type.Optional(Type.String()),
    published: Type.Optional(Moment),
    actor: Id,
    object: Id,
    target: Type.Array(Id),
  }),
  Type.Object({
    source: Id,
    targets: Type.Array(Id),
    message: Id,
    date: Moment,
    verb: Type.String({ minLength: 1 }),
  }),
]);

const Reference = Type.Object({ objectType: Type.String(), id: Type.String() });
const Label = Type.Object({ label: Type.String(), text: Type.String() });

/** A user notification: one per recipient. `target` and every id are strings here, in whatever form they came. */
export const UserNotification = Type.Object({
  id: Type.String({ minLength: 1 }),
  subject: Type.Object({ objectType: ObjectType('user'), id: Type.String() }),
  verb: Label,
  complement: Reference,
  context: Nullable(Reference),
  description: Nullable(Type.String()),
  icon: Nullable(Type.Object({ objectType: ObjectType('icon'), id: Type.String() })),
  category: Type.String(),
  interactive: Type.Boolean(),
  action: Type.Array(Type.Object({ url: Type.String(), display: Label })),
  target: Type.String({ minLength: 1 }),
  read: Type.Boolean(),
  acknowledged: Type.Boolean(),
  withdrawn: Type.Boolean(),
  timestamps: Type.Object({ creation: Type.String({ format: 'date-time' }) }),
  title: Type.Optional(Type.String()),
  level: Type.Optional(Type.String()),
  data: Type.Optional(Type.Unknown()),
});
export type UserNotification = Static<typeof UserNotification>;

/**
 * A change of an inbox: `notification` where one changed, `ids` where many did, and the inbox as it is now.
 * Of two of these, the one with the higher `version` is the newer.
 */
export const InboxUpdate = Type.Object({
  target: Type.String({ minLength: 1 }),
  notification: Type.Optional(UserNotification),
  ids: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  unread_count: Type.Integer({ minimum: 0 }),
  version: Type.Integer({ minimum: 0 }),
});
export type InboxUpdate = Static<typeof InboxUpdate>;

const local = { scopes: ['local'], access: 'platform', source: 'esn' } as const;
const invitation = { ...local, publishers: ['invitation'], subscribers: [] } as const;
const community = { ...local, publishers: ['community'] } as const;
const infrastructure = { ...local, payload: AnyObject } as const;
const inbox = {
  scopes: ['global'],
  access: 'owner',
  parameter: { name: 'target', owner: 'sub', hidden: true },
  publishers: ['notification/pubsub'],
  subscribers: [],
  source: 'esn',
} as const;

export const esnTopics = defineTopics({
  'invitation:init:success': {
    ...invitation,
    description: 'An invitation was created and its handler has prepared it.',
    payload: AnyObject,
  },
  'invitation:init:failure': {
    ...invitation,
    description: 'The handler of a new invitation could not prepare it.',
    payload: InvitationFailure,
  },
  'invitation:process:success': {
    ...invitation,
    description: 'The invited person opened the invitation and it was processed.',
    payload: AnyObject,
  },
  'invitation:process:failure': {
    ...invitation,
    description: 'The invited person opened the invitation and processing it failed.',
    payload: InvitationFailure,
  },
  'invitation:finalize:success': {
    ...invitation,
    description: 'An invitation was completed.',
    payload: AnyObject,
  },
  'invitation:finalize:failure': {
    ...invitation,
    description: 'An invitation could not be completed.',
    payload: InvitationFailure,
  },
  'login:success': {
    ...local,
    description: 'A user has logged in.',
    publishers: ['user/login'],
    subscribers: [],
    payload: AnyObject,
  },
  'login:failure': {
    ...local,
    description: 'A user tried to log in and was refused.',
    publishers: ['user/login'],
    subscribers: [],
    payload: AnyObject,
  },
  'mongodb:configurationAvailable': {
    ...infrastructure,
    description: 'The configuration of MongoDB can be read.',
    publishers: [],
    subscribers: [],
  },
  'mongodb:connectionAvailable': {
    ...infrastructure,
    aliases: ['mongodb:connexionAvailable'],
    description: 'A connection to the MongoDB server was established; repeated at each new one.',
    publishers: ['db/mongo', 'configured'],
    subscribers: ['db/redis', 'templates', 'setup-sessions'],
  },
  'webserver:mongosessionstoreEnabled': {
    ...infrastructure,
    description: 'The web server keeps its sessions in MongoDB from now on, no longer in memory.',
    publishers: [],
    subscribers: [],
  },
  'redis:configurationAvailable': {
    ...infrastructure,
    description: 'The configuration of Redis can be read.',
    publishers: [],
    subscribers: [],
  },
  'globalpubsub:config': {
    ...infrastructure,
    description: 'The settings with which the global bus is to connect.',
    publishers: [],
    subscribers: ['pubsub/global'],
  },
  'domain:invitations:sent': {
    ...local,
    description: 'A user has sent invitations to join a domain.',
    publishers: ['domains'],
    subscribers: [],
    payload: Type.Object({ user: Id, domain: Id, emails: Type.Array(Type.String()) }),
  },
  'message:stored': {
    ...local,
    scopes: ['local', 'global'],
    description: 'A new message was stored; the payload is the message with its id.',
    publishers: ['messages'],
    subscribers: [],
    payload: AnyObject,
  },
  'message:comment': {
    ...local,
    description: 'A comment was added to a message; the payload is the comment.',
    publishers: [],
    subscribers: [],
    payload: Type.Object({ inReplyTo: Type.Unknown() }),
  },
  'message:activity': {
    ...local,
    scopes: ['local', 'global'],
    description: 'Somebody did something with a message, with or without particular targets.',
    publishers: ['messages'],
    subscribers: ['activitystreams'],
    payload: MessageActivity,
  },
  'notification:external': {
    ...local,
    description: 'Another program asks that one or more users be notified.',
    publishers: ['notification/notification'],
    subscribers: ['notification/pubsub'],
    payload: Type.Object({
      target: Type.Union([Id, Type.Array(Id, { minItems: 1 })], {
        title: 'an id or a list of at least one id',
      }),
      action: Type.String({ minLength: 1 }),
      author: Type.Optional(Id),
      object: Type.Optional(Id),
      context: Type.Optional(Id),
      link: Type.Optional(Type.String()),
      icon: Type.Optional(Type.String()),
      title: Type.Optional(Type.String()),
      level: Type.Optional(Type.String()),
      data: Type.Optional(Type.Unknown()),
    }),
  },
  'community:join': {
    ...community,
    description: 'A user has become a member of a community.',
    subscribers: ['activitystreams', 'notification/pubsub'],
    payload: CommunityJoin,
  },
  'community:leave': {
    ...community,
    description: 'A user is no longer a member of a community.',
    subscribers: [],
    payload: CommunityEvent,
  },
  'community:membership:invite': {
    ...community,
    description: 'A manager has invited a user into a community.',
    subscribers: ['notification/pubsub'],
    payload: MembershipEvent,
  },
  'community:membership:request': {
    ...community,
    description: 'A user has asked to become a member of a community.',
    subscribers: ['notification/pubsub'],
    payload: MembershipEvent,
  },
  'community:membership:invitation:cancel': {
    ...community,
    description: 'A manager has taken back the invitation of an attendee.',
    subscribers: ['notification/pubsub'],
    payload: MembershipEvent,
  },
  'community:membership:invitation:decline': {
    ...community,
    description: 'An attendee has turned down an invitation; the target is the community.',
    subscribers: [],
    payload: MembershipEvent,
  },
  'community:membership:request:refuse': {
    ...community,
    description: "A manager has turned down a user's request to join.",
    subscribers: ['notification/pubsub'],
    payload: MembershipEvent,
  },
  'community:membership:request:cancel': {
    ...community,
    description: 'An attendee has taken back the request to join; the target is the community.',
    subscribers: [],
    payload: MembershipEvent,
  },
  'usernotification:created': {
    ...inbox,
    description: 'A notification was added to the inbox of its target.',
    payload: UserNotification,
  },
  'usernotification:updated': {
    ...inbox,
    description: 'Notifications of an inbox were read, acknowledged or withdrawn.',
    payload: InboxUpdate,
  },
});
