/**
 * The AsyncAPI 3.0 document of the catalogue, and of topics that an audience registered
 * (docs/protocols/events.md, "AsyncAPI").
 */
import type { CatalogueEntry } from '../catalogue/entry.js';
import { EXAMPLES } from '../catalogue/examples.js';
import { CATALOGUE, type TopicName } from '../catalogue/index.js';
import {
  ROOM_RULES,
  type Rule,
  rulesFor,
  rulesOf,
  subjectsAt,
  subjectsOf,
  templateName,
} from '../catalogue/words.js';
import { HEADER } from '../envelope.js';
import { mayPublish, mayReceive } from '../permission.js';
import type { Principal } from '../principal.js';
import { ROOM_SCOPES, type RoomScope } from '../room.js';
import type { TopicRecord } from '../rpc/registry.js';
import { encodeToken, STREAMS } from '../subject.js';
import { EVENT_NAME_LIMIT, parseTopic } from '../topic.js';
import { portableSchema } from './portable-schema.js';

/** A part of the document. */
type Part = Readonly<Record<string, unknown>>;

/** One topic in the document: a channel with its message, and the operations on it. */
export interface DescribedTopic {
  /** Key of the channel: the topic's segments as in its subject, `*` for one that differs. No two have the same. */
  readonly id: string;
  readonly channel: Part;
  readonly operations: Readonly<Record<string, Part>>;
}

/** What {@link asyncApiDocument} is made of. */
export interface DocumentContent {
  /** Where sockets connect, without the key: `wss://bus.example.org/ws`. */
  readonly socketUrl: string;
  readonly topics: readonly DescribedTopic[];
  /** Whose registered topics are among them. */
  readonly audience?: string;
  /** Names the last of them where the audience has registered more. */
  readonly next?: string;
}

/** The media type of a tenant's schema: JSON Schema 2020-12, as it was registered. */
const TENANT_SCHEMA = 'application/schema+json;version=2020-12';

const SOURCES: Readonly<Record<CatalogueEntry['source'] | 'registered', string>> = {
  esn: 'Local and global topics of the platform, and the inbox (docs/protocols/esn.md)',
  'inthe-am': 'Typed messages for all users or for one (docs/protocols/inthe-am.md)',
  tryton: 'Channels of the long-polling bus (docs/protocols/tryton.md)',
  livestorm: 'Rooms: topics `room/…`, whose names are made at run time (docs/protocols/livestorm.md)',
  courier: 'Broadcasts (docs/protocols/courier.md)',
  registered: 'Topics that the audience registered with POST /v1/topic',
};

const DESCRIPTION = `Events of the bus, by topic. An operation is what a client or service does: \`send\` publishes, \
\`receive\` subscribes.

The payload of a message is the event's own. On a socket it stands in a frame, as \`message\`: \
\`{"action":"message","topic":"…","id":"…","position":"…","message":{…}}\`, and \
\`{"action":"publish","topic":"…","message":{…}}\` publishes it. On NATS it is the message itself, with the headers.

\`x-posthorn-subjects\` has the NATS subject for each scope. \`<audience>\` is the tenant, \`<instance>\` one deployment; \
\`-\` stands for no key. Each is one token, in which characters outside \`A-Z a-z 0-9 _ -\` are \`=XX\` for each byte of \
UTF-8. Whoever publishes there needs nothing of ours; what is stored there is read from the stream ${STREAMS.global.name} or \
${STREAMS.local.name}. \`x-posthorn-who\` has the roles that may do it, and the modules that do.

Topics need no registration: any other name is a topic too, with any object as its payload.`;

/** Every topic of the catalogue, in its order. */
export function describeCatalogue(): readonly DescribedTopic[] {
  return [...CATALOGUE.values()].map(describeEntry);
}

function describeEntry(entry: CatalogueEntry): DescribedTopic {
  const { name, parameter, aliases, scopes, publishers, subscribers, source } = entry;
  const notes = [
    entry.description,
    ...(aliases ?? []).map((alias) => `Also written \`${alias}\`: either name hears both.`),
    ...(parameter?.hidden ? [`The event's key is \`${parameter.name}\` of its payload.`] : []),
  ];
  const address = templateName(entry);
  const rules = rulesOf(entry);
  const channel = {
    address,
    title: address,
    description: notes.join(' '),
    messages: {
      event: {
        name,
        title: address,
        summary: entry.description,
        payload: entry.payload,
        examples: [{ payload: EXAMPLES[name as TopicName] }],
        traits: [{ $ref: '#/components/messageTraits/event' }],
      },
    },
    ...(parameter && !parameter.hidden && { parameters: { [parameter.name]: describeParameter(parameter) } }),
    ...common(scopes.includes('global'), source),
    ...(aliases && { 'x-posthorn-aliases': aliases }),
    'x-posthorn-scopes': scopes,
    'x-posthorn-subjects': subjectsOf(entry),
  };
  return topicOf(channelId(name.split(/[:/.]/)), channel, {
    send: { rule: rules.publish, modules: publishers },
    receive: { rule: rules.subscribe, modules: subscribers },
  });
}

/** The topics of rooms, one for each scope: their names hold ids and event names, which are made at run time. */
export function describeRooms(): readonly DescribedTopic[] {
  return ROOM_SCOPES.map((scope) => {
    const { reaches, id } = ROOMS[scope];
    const names = [...(id ? [id] : []), 'eventName'] as const;
    const address = `room/${scope}/${names.map((name) => `{${name}}`).join('/')}`;
    const path = `-.room.${scope}.${names.map((name) => `<${name}>`).join('.')}`;
    const channel = {
      address,
      title: address,
      description: `${reaches} Servers publish here by \`POST /api/v1/pub_subs\` too. The payload is any object.`,
      messages: {
        event: {
          name: `room/${scope}`,
          title: address,
          payload: { type: 'object' },
          examples: [{ payload: { foo: 'bar' } }],
          traits: [{ $ref: '#/components/messageTraits/event' }],
        },
      },
      parameters: Object.fromEntries(names.map((name) => [name, { description: ROOM_PARAMETERS[name] }])),
      ...common(true, 'livestorm'),
      'x-posthorn-scopes': ['global'],
      'x-posthorn-subjects': subjectsAt(path, ['global']),
    };
    const { publish, subscribe } = ROOM_RULES[scope];
    const key = ['room', scope, ...names.map(() => '*')].join('.');
    return topicOf(key, channel, { send: { rule: publish }, receive: { rule: subscribe } });
  });
}

const ROOMS: Readonly<Record<RoomScope, { reaches: string; id?: 'event_id' | 'session_id' }>> = {
  organization: { reaches: 'Every room of every event hears it.' },
  event: { reaches: 'Every session of the event hears it.', id: 'event_id' },
  session: { reaches: 'The room of that session hears it.', id: 'session_id' },
};

const ROOM_PARAMETERS = {
  event_id: "As in the claim `room` of a member's token",
  session_id: "As in the claim `room` of a member's token",
  eventName: `1 to ${EVENT_NAME_LIMIT} characters of anything`,
} as const;

function describeParameter({ name, owner, secret }: NonNullable<CatalogueEntry['parameter']>): Part {
  const description = secret
    ? 'A secret: a UUID, or at least 22 random characters. Subjects and headers carry its SHA-256 only.'
    : `The claim \`${owner ?? name}\` of the one user that hears it. It takes the rest of the name, whatever it holds.`;
  return { description };
}

/** An ordinary member of an audience, of whom the policy is asked. */
const member = (audience: string): Principal => ({ audience, sub: null, username: null, role: 'user' });

/** A topic that its audience registered; undefined for one that the catalogue has. */
export function describeRegistered(record: TopicRecord): DescribedTopic | undefined {
  const topic = parseRegistered(record);
  if (!topic || topic.entry) return undefined;
  const { segments, path } = topic;
  const principal = member(record.audience);
  const rules = rulesFor(segments[0] === 'room' ? 'room' : 'plain', {
    publish: mayPublish(principal, topic, 'global'),
    subscribe: mayReceive(principal, topic),
  });
  const id = channelId(segments);
  const at = `#/channels/${id}/messages/event/payload/schema`;
  const channel = {
    ...addressOf(record.topic),
    title: record.topic,
    messages: {
      event: {
        name: record.topic,
        payload: record.schema
          ? { schemaFormat: TENANT_SCHEMA, schema: portableSchema(record.schema, at) }
          : { type: 'object' },
        traits: [{ $ref: '#/components/messageTraits/event' }],
      },
    },
    ...common(true, 'registered'),
    'x-posthorn-subjects': record.durable
      ? subjectsAt(path, ['global', 'local'])
      : { global: `ph-eph.<audience>.${path}` },
    'x-posthorn-durable': record.durable,
    ...(record.retention !== undefined && { 'x-posthorn-retention': record.retention }),
  };
  return topicOf(id, channel, { send: { rule: rules.publish }, receive: { rule: rules.subscribe } });
}

function parseRegistered({ topic, path }: TopicRecord) {
  try {
    const parsed = parseTopic(topic);
    return parsed.path === path ? parsed : undefined;
  } catch {
    // A name of the catalogue with a hidden parameter.
    return undefined;
  }
}

/** A name as an address. Braces would be parameters there, so they become parameters of one value. */
function addressOf(name: string): Part {
  if (!/[{}]/.test(name)) return { address: name };
  const one = (brace: string) => ({ enum: [brace], default: brace, description: `A \`${brace}\`` });
  return {
    address: name.replace(/[{}]/g, (brace) => (brace === '{' ? '{open}' : '{close}')),
    parameters: {
      ...(name.includes('{') && { open: one('{') }),
      ...(name.includes('}') && { close: one('}') }),
    },
  };
}

function common(forUsers: boolean, tag: string): Part {
  return {
    servers: [...(forUsers ? [{ $ref: '#/servers/gateway' }] : []), { $ref: '#/servers/nats' }],
    tags: [{ $ref: `#/components/tags/${tag}` }],
  };
}

interface Operation {
  readonly rule: Rule;
  readonly modules?: readonly string[];
}

function topicOf(id: string, channel: Part, does: Record<'send' | 'receive', Operation>): DescribedTopic {
  const pointer = `#/channels/${id}`;
  const operations = Object.entries(does).map(([action, { rule, modules }]) => [
    `${action}.${id}`,
    {
      action,
      channel: { $ref: pointer },
      messages: [{ $ref: `${pointer}/messages/event` }],
      description: `For ${rule.text}.`,
      'x-posthorn-who': { roles: rule.roles, ...(modules && { modules }) },
    },
  ]);
  return { id, channel, operations: Object.fromEntries(operations) };
}

/** Segments as in a subject. What every object has by inheritance is escaped: readers look for own members so. */
function channelId(segments: readonly string[]): string {
  const id = segments.map(encodeToken).join('.');
  if (!(id in {})) return id;
  return `=${id.charCodeAt(0).toString(16).toUpperCase()}${id.slice(1)}`;
}

/** The document as JSON. Characters that a YAML reader would change inside of a text are written as escapes. */
export function asyncApiDocument(content: DocumentContent): string {
  return JSON.stringify(documentOf(content)).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function documentOf({ socketUrl, topics, audience, next }: DocumentContent): Part {
  const { protocol, host, pathname } = new URL(socketUrl);
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Posthorn',
      version: '1',
      description: DESCRIPTION,
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
      tags: Object.keys(SOURCES).map((source) => ({ $ref: `#/components/tags/${source}` })),
      ...(audience !== undefined && { 'x-posthorn-audience': audience }),
      ...(next !== undefined && { 'x-posthorn-next': next }),
    },
    defaultContentType: 'application/json',
    servers: {
      gateway: {
        host,
        pathname,
        protocol: protocol.replace(':', ''),
        description:
          'Global topics, for end users and services. One connection subscribes to any number of topics.',
        security: [
          { $ref: '#/components/securitySchemes/key' },
          { $ref: '#/components/securitySchemes/subprotocol' },
        ],
      },
      nats: {
        host: '{host}',
        protocol: 'nats',
        description: 'All topics, for services of the platform. It is not reached from outside.',
        variables: { host: { default: 'localhost:4222', description: 'Where the platform runs NATS' } },
        security: [{ $ref: '#/components/securitySchemes/nats' }],
      },
    },
    channels: Object.fromEntries(topics.map(({ id, channel }) => [id, channel])),
    operations: Object.assign({}, ...topics.map(({ operations }) => operations)),
    components: {
      securitySchemes: {
        jwt: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'The token of a user or service, for REST calls; its `aud` is the audience.',
        },
        key: {
          type: 'httpApiKey',
          name: 'token',
          in: 'query',
          description: 'A key from `GET /v1/sign`, called with the JWT; good for connecting within 60 s.',
        },
        subprotocol: {
          type: 'httpApiKey',
          name: 'Sec-WebSocket-Protocol',
          in: 'header',
          description: 'The same key as `posthorn.key.<key>` beside `posthorn.v1`, so that it is in no log.',
        },
        nats: { type: 'userPassword', description: 'A user of the NATS account, or credentials of one.' },
      },
      messageTraits: { event: { contentType: 'application/json', headers: HEADERS } },
      tags: Object.fromEntries(
        Object.entries(SOURCES).map(([name, description]) => [name, { name, description }]),
      ),
    },
  };
}

const text = (description: string, more: Part = {}) => ({ type: 'string', description, ...more });

/** The envelope on NATS (docs/protocols/events.md, "Envelope"). A foreign publisher may leave out all. */
const HEADERS = {
  type: 'object',
  properties: {
    [HEADER.msgId]: text('What makes two publishes the same one, within two minutes'),
    [HEADER.specVersion]: text('CloudEvents', { const: '1.0' }),
    [HEADER.id]: text("The event's id", { examples: ['01993c5e-8a52-7c1e-b1f3-0a4f2c7d9e10'] }),
    [HEADER.source]: text('Who published'),
    [HEADER.type]: text('The topic'),
    [HEADER.time]: text('When', { format: 'date-time' }),
    [HEADER.topic]: text('The topic as it was published'),
    [HEADER.kind]: text('`broadcast` where it is one', { enum: ['broadcast'] }),
    [HEADER.traceparent]: text('W3C trace context'),
  },
};
