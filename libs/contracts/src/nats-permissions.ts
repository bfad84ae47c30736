/**
 * What each connection to NATS may publish and hear (docs/security.md, "NATS accounts"). The one source: the server's
 * configuration is made of it (nats-config.ts).
 *
 * Answers go to inboxes that are named, one for each app, and never by `allow_responses`: that would let a caller
 * send an app's answer to any subject, also to one that the app itself may not publish.
 * Nobody has `$JS.API.DIRECT.GET`: its answer is a stored payload under whatever subject the question named.
 */
import { BUCKETS, encodeToken, STREAMS } from './subject.js';

/** The apps that connect to NATS. */
export const NATS_APPS = ['auth', 'registry', 'notifier', 'gateway'] as const;
export type NatsApp = (typeof NATS_APPS)[number];

/** An internal service: it uses the server SDK in the platform's own account. */
export interface NatsService {
  /** Its name: what it gives as `source`, which its inboxes are named after. */
  readonly name: string;
  /** The one audience it works for; null for all. Keeps mistakes in, and is no wall: that is what accounts are for. */
  readonly audience: string | null;
}

/** Subjects as NATS filters them; a subscription of a queue group only is `<subject> <queue>`. */
export interface NatsPermissions {
  readonly publish: { readonly allow: readonly string[]; readonly deny: readonly string[] };
  readonly subscribe: { readonly allow: readonly string[] };
}

/** Where answers to an app come. */
export function appInbox(app: string): string {
  return `_INBOX.${app}`;
}

/** The longest name of a service, as a token: it stands in each of its requests, beside a subject that may be long. */
const SERVICE_LIMIT = 64;

/**
 * Where answers to a service come; undefined for what none can be called: nothing, ill-formed text, or a name of more
 * than 64 characters as a subject's token.
 */
export function serviceInbox(name: string): string | undefined {
  if (name === '' || !name.isWellFormed()) return undefined;
  const token = encodeToken(name);
  return token.length <= SERVICE_LIMIT ? `_INBOX.service.${token}` : undefined;
}

const { global, local, dead } = STREAMS;
const ACCOUNT = '$JS.API.INFO';
const LEADER_ELECTED = '$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*';
const STREAM_ADVISORIES = '$JS.EVENT.ADVISORY.STREAM.*.*';
/** Every app's calls, shared by its replicas. */
const calls = (app: NatsApp) => `ph-rpc.${app}.*`;
const LOOKUP = 'ph-rpc.registry.lookup';

/** What a stream says of itself, and single messages by the word of its leader. */
const looked = (stream: string) => [`$JS.API.STREAM.INFO.${stream}`, `$JS.API.STREAM.MSG.GET.${stream}`];
/** Consumers of a stream, with one of these filters each, that are pulled from. */
const consumed = (stream: string, ...filters: string[]) => [
  ...filters.map((filter) => `$JS.API.CONSUMER.CREATE.${stream}.*.${filter}`),
  `$JS.API.CONSUMER.INFO.${stream}.*`,
  `$JS.API.CONSUMER.MSG.NEXT.${stream}.*`,
  `$JS.API.CONSUMER.DELETE.${stream}.*`,
];
const acknowledged = (stream: string) => `$JS.ACK.${stream}.>`;

const bucketOf = (bucket: string) => `KV_${bucket}`;
const entries = (bucket: string) => `$KV.${bucket}.>`;
/** A bucket followed by `followBucket` of libs/bus. */
const followed = (bucket: string, filter: string) => [
  `$JS.API.STREAM.INFO.${bucketOf(bucket)}`,
  ...consumed(bucketOf(bucket), `$KV.${bucket}.${filter}`),
];
/** A bucket watched as `BucketWatch` of libs/service does: the server pushes, and asks now and then whether it may. */
const watched = (bucket: string) => [
  ...looked(bucketOf(bucket)),
  `$JS.API.CONSUMER.CREATE.${bucketOf(bucket)}.*.${entries(bucket)}`,
  `$JS.API.CONSUMER.INFO.${bucketOf(bucket)}.*`,
  `$JS.API.CONSUMER.DELETE.${bucketOf(bucket)}.*`,
  `$JS.FC.${bucketOf(bucket)}.>`,
];
const created = (stream: string) => `$JS.API.STREAM.CREATE.${stream}`;

/** What a bus needs to know of topics and epochs, of one audience's topics or of all. */
const known = (audience: string) => [
  ...followed(BUCKETS.topics, audience === '*' ? '>' : `${audience}.>`),
  ...followed(BUCKETS.streams, '>'),
  LOOKUP,
];

/** The notifications' own subjects: the notifier alone publishes them. */
const notifications = (audience: string) => `ph.${audience}.global.*.usernotification.>`;
const foreignNotifications = (audience: string) => [
  notifications(audience),
  `ph.${audience}.local.*.*.usernotification.>`,
  `ph-eph.${audience}.*.usernotification.>`,
];

/** What the platform's apps may do, all of them in one account. */
export const APP_PERMISSIONS: Readonly<Record<NatsApp, NatsPermissions>> = {
  auth: {
    publish: {
      allow: [
        ACCOUNT,
        created(bucketOf(BUCKETS.revoked)),
        ...watched(BUCKETS.revoked),
        `$JS.API.STREAM.PURGE.${bucketOf(BUCKETS.revoked)}`,
        entries(BUCKETS.revoked),
        `${appInbox('gateway')}.>`,
      ],
      deny: [],
    },
    subscribe: { allow: [`${appInbox('auth')}.>`, `${calls('auth')} auth`] },
  },
  registry: {
    publish: {
      allow: [
        ACCOUNT,
        ...[global, local, dead].flatMap(({ name }) => [
          ...looked(name),
          created(name),
          `$JS.API.STREAM.UPDATE.${name}`,
        ]),
        ...[BUCKETS.topics, BUCKETS.streams].flatMap((bucket) => [
          ...looked(bucketOf(bucket)),
          created(bucketOf(bucket)),
          entries(bucket),
        ]),
        // Its listing of the whole bucket has neither a name nor a filter.
        `$JS.API.CONSUMER.CREATE.${bucketOf(BUCKETS.topics)}`,
        ...consumed(bucketOf(BUCKETS.topics)),
        ...(['gateway', 'notifier'] as const).map((app) => `${appInbox(app)}.>`),
        '_INBOX.service.>',
      ],
      deny: [],
    },
    subscribe: {
      allow: [`${appInbox('registry')}.>`, `${calls('registry')} registry`, STREAM_ADVISORIES],
    },
  },
  notifier: {
    publish: {
      allow: [
        ACCOUNT,
        notifications('*'),
        ...looked(global.name),
        ...looked(local.name),
        ...consumed(local.name, local.subjects),
        acknowledged(local.name),
        ...looked(dead.name),
        ...consumed(dead.name, dead.subjects, dead.redrives),
        acknowledged(dead.name),
        dead.subjects,
        dead.redrives,
        // Asked for the epochs before it begins.
        ...looked(bucketOf(BUCKETS.streams)),
        ...known('*'),
        `${appInbox('gateway')}.>`,
      ],
      deny: [],
    },
    subscribe: { allow: [`${appInbox('notifier')}.>`, `${calls('notifier')} notifier`] },
  },
  gateway: {
    publish: {
      allow: [
        ACCOUNT,
        global.subjects,
        local.subjects,
        'ph-eph.>',
        ...looked(global.name),
        ...consumed(global.name, global.subjects),
        ...looked(local.name),
        ...watched(BUCKETS.revoked),
        ...known('*'),
        ...(['auth', 'registry', 'notifier'] as const).map(calls),
      ],
      deny: foreignNotifications('*'),
    },
    subscribe: { allow: [`${appInbox('gateway')}.>`, 'ph-live.>', 'ph-eph.>', LEADER_ELECTED] },
  },
};

/**
 * What an internal service with the server SDK may do, in the platform's account.
 * @throws RangeError where it has no inbox
 */
export function servicePermissions({ name, audience }: NatsService): NatsPermissions {
  const inbox = serviceInbox(name);
  if (inbox === undefined) throw new RangeError(`no service can be called ${JSON.stringify(name)}`);
  const whose = audience === null ? '*' : encodeToken(audience);
  const events = { global: `ph.${whose}.global.>`, local: `ph.${whose}.local.>` };
  return {
    publish: {
      allow: [
        ACCOUNT,
        events.global,
        events.local,
        `ph-eph.${whose}.>`,
        ...(['global', 'local'] as const).flatMap((scope) => [
          ...looked(STREAMS[scope].name),
          ...consumed(STREAMS[scope].name, events[scope]),
          acknowledged(STREAMS[scope].name),
        ]),
        ...consumed(dead.name, dead.redrives),
        acknowledged(dead.name),
        dead.subjects,
        created(bucketOf(BUCKETS.consumers)),
        ...looked(bucketOf(BUCKETS.consumers)),
        entries(BUCKETS.consumers),
        ...known(whose),
      ],
      deny: foreignNotifications(whose),
    },
    subscribe: {
      allow: [
        `${inbox}.>`,
        ...['ph-live', 'ph-live-local', 'ph-eph'].map((prefix) => `${prefix}.${whose}.>`),
        LEADER_ELECTED,
      ],
    },
  };
}

/** What crosses between the platform's account and that of an audience: its publishes in, its live copies out. */
export function audienceCrossing(audience: string): { readonly publish: string; readonly live: string } {
  const token = encodeToken(audience);
  return { publish: `ph.${token}.global.>`, live: `ph-live.${token}.>` };
}

/** What a publisher of one audience may do in the account of that audience, which holds nobody else. */
export function audiencePermissions(audience: string): NatsPermissions {
  const { publish, live } = audienceCrossing(audience);
  return {
    publish: { allow: [publish], deny: [notifications(encodeToken(audience))] },
    subscribe: { allow: ['_INBOX.>', live] },
  };
}
