/** The topics of docs/protocols/esn.md. */
import { type Static, Type } from '@sinclair/typebox';
import { defineTopics } from './entry.js';
import { Id } from './ids.js';
import { AnyObject, described, Nullable, ObjectType } from './shapes.js';

/** Milliseconds since 1970, or a date as text: producers send `Date.now()` and serialised dates. */
const Moment = Type.Union([Type.Number(), Type.String({ minLength: 1 })], {
  title: 'milliseconds since 1970, or a date as text',
});

const communityData = {
  author: described(Id, 'Who did it'),
  target: described(Id, 'Whom it concerns'),
  community: described(Id, 'Where'),
  managers: Type.Optional(
    Type.Array(Id, {
      description: 'The managers of the community; goes before those that the platform keeps for it',
    }),
  ),
};
const CommunityEvent = Type.Object(communityData);
const CommunityJoin = Type.Object({
  ...communityData,
  actor: Type.Optional(Type.String({ description: '`manager`: a manager accepted a request to join' })),
});
const MembershipEvent = Type.Object({
  ...communityData,
  membership: Type.Optional(described(AnyObject, 'The request or invitation as it is kept')),
});

const InvitationFailure = Type.Object({
  invitation: described(AnyObject, 'The invitation as it is kept'),
  error: Type.Unknown({ description: 'What went wrong; an `Error` becomes `{name, message}`' }),
});

const MessageActivity = Type.Union([
  Type.Object({
    verb: Type.String({ minLength: 1, description: 'What was done, such as `post`' }),
    language: Type.Optional(Type.String({ description: 'Of the message' })),
    published: Type.Optional(described(Moment, 'When')),
    actor: described(Id, 'Who did it'),
    object: described(Id, 'The message'),
    target: Type.Array(Id, { description: 'Where it is shown; may be empty' }),
  }),
  Type.Object({
    source: described(Id, 'Who did it'),
    targets: Type.Array(Id, { description: 'Where it is shown; may be empty' }),
    message: described(Id, 'The message'),
    date: described(Moment, 'When'),
    verb: Type.String({ minLength: 1, description: 'What was done, such as `post`' }),
  }),
]);

const Reference = Type.Object({ objectType: Type.String(), id: Type.String() });
const Label = Type.Object({ label: Type.String(), text: Type.String() });

/** A user notification: one per recipient. `target` and every id are strings here, in whatever form they came. */
export const UserNotification = Type.Object({
  id: Type.String({ minLength: 1, description: "The notification's own id" }),
  subject: Type.Object(
    { objectType: ObjectType('user'), id: Type.String() },
    { description: 'Who caused it' },
  ),
  verb: described(Label, 'What happened, as a label to translate and as text'),
  complement: described(Reference, 'What it is about'),
  context: described(Nullable(Reference), 'Where it happened'),
  description: described(Nullable(Type.String()), 'More text'),
  icon: described(
    Nullable(Type.Object({ objectType: ObjectType('icon'), id: Type.String() })),
    'What to show beside it',
  ),
  category: Type.String({ description: 'The kind, by which clients sort and translate' }),
  interactive: Type.Boolean({ description: 'Whether it waits for an answer of its target' }),
  action: Type.Array(Type.Object({ url: Type.String(), display: Label }), { description: 'Links to offer' }),
  target: Type.String({ minLength: 1, description: 'The user whose inbox it is in' }),
  read: Type.Boolean({ description: 'Whether its target has read it' }),
  acknowledged: Type.Boolean({ description: 'Whether its target is done with it' }),
  withdrawn: Type.Boolean({ description: 'Whether what it says no longer holds' }),
  timestamps: Type.Object(
    { creation: Type.String({ format: 'date-time' }) },
    { description: 'When it was created' },
  ),
  title: Type.Optional(Type.String({ description: 'As `notification:external` gave it' })),
  level: Type.Optional(Type.String({ description: 'As `notification:external` gave it' })),
  data: Type.Optional(Type.Unknown({ description: 'As `notification:external` gave it' })),
});
export type UserNotification = Static<typeof UserNotification>;

/**
 * A change of an inbox: `notification` where one changed by its name, `ids` where a call or the platform changed
 * several, and the inbox as it is right after it. Of two of these, the one with the higher `version` is the newer.
 */
export const InboxUpdate = Type.Object({
  target: Type.String({ minLength: 1, description: 'The user whose inbox it is' }),
  change: Type.Optional(
    Type.Union(
      [
        Type.Literal('read'),
        Type.Literal('unread'),
        Type.Literal('acknowledged'),
        Type.Literal('unacknowledged'),
        Type.Literal('withdrawn'),
        Type.Literal('removed'),
      ],
      { description: 'What became of them' },
    ),
  ),
  notification: Type.Optional(
    described(UserNotification, 'The one that changed, as it is now, where one was named'),
  ),
  ids: Type.Optional(
    Type.Array(Type.String({ minLength: 1 }), {
      description: 'Those that changed, where a call or the platform changed several',
    }),
  ),
  unread_count: Type.Integer({ minimum: 0, description: 'Unread ones in the inbox right after it' }),
  version: Type.Integer({
    minimum: 0,
    description: 'Grows by one with each usernotification:created and :updated of the inbox',
  }),
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
    payload: Type.Object({
      user: described(Id, 'Who invited'),
      domain: described(Id, 'Into which domain'),
      emails: Type.Array(Type.String(), { description: 'Who was invited' }),
    }),
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
    payload: Type.Object({ inReplyTo: Type.Unknown({ description: 'The message that was commented on' }) }),
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
        description: 'Who is notified',
      }),
      action: Type.String({ minLength: 1, description: "The notification's label and text" }),
      author: Type.Optional(described(Id, 'Who caused it')),
      object: Type.Optional(described(Id, 'What it is about; its `objectType` is kept')),
      context: Type.Optional(described(Id, 'Where it happened; its `objectType` is kept')),
      link: Type.Optional(Type.String({ description: 'A link to offer' })),
      icon: Type.Optional(Type.String({ description: 'The id of an icon' })),
      title: Type.Optional(Type.String({ description: 'Kept on the notification' })),
      level: Type.Optional(Type.String({ description: 'Kept on the notification' })),
      data: Type.Optional(Type.Unknown({ description: 'Kept on the notification' })),
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
