/** The OpenAPI document of the gateway's REST calls, as data: the contracts are in docs/protocols. */
import { PAGE, PROBLEMS, type ProblemCode, RETENTION, UserNotification } from '@posthorn/contracts';

type Schema = Record<string, unknown>;

const text = (description: string, more: Schema = {}): Schema => ({ type: 'string', description, ...more });
const object = (
  properties: Record<string, Schema>,
  required: string[] = Object.keys(properties),
): Schema => ({
  type: 'object',
  properties,
  required,
});
const json = (schema: Schema) => ({ 'application/json': { schema } });
const answer = (description: string, schema: Schema) => ({ description, content: json(schema) });
const body = (schema: Schema) => ({ required: true, content: json(schema) });
const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
const query = (name: string, schema: Schema) => ({ name, in: 'query', schema });
const path = (name: string, description: string) => ({
  name,
  in: 'path',
  required: true,
  schema: text(description),
});

/** The problems of a call beside those that every call may have. */
function problems(...codes: ProblemCode[]) {
  const every: ProblemCode[] = [
    'unauthorized',
    'token_expired',
    'audience_not_found',
    'request_invalid',
    'unavailable',
  ];
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of [...every, ...codes]) {
    const { status } = PROBLEMS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const entries = [...byStatus].map(([status, some]) => [
    String(status),
    { description: some.join(', '), content: { 'application/problem+json': { schema: ref('Problem') } } },
  ]);
  return Object.fromEntries(entries);
}

const AUDIENCE = object({
  id: text('', { format: 'uuid' }),
  name: text('The claim aud of its tokens'),
  created_at: text('', { format: 'date-time' }),
  updated_at: text('', { format: 'date-time' }),
});

const TOPIC_PROPERTIES = {
  schema: { type: 'object', description: 'JSON Schema 2020-12 of the message; role service or admin' },
  retention: {
    type: 'integer',
    minimum: RETENTION.min,
    maximum: RETENTION.max,
    description: 'Seconds for which events can be read back; role service or admin',
  },
  durable: { type: 'boolean', default: true, description: 'Role service or admin' },
};

const TOPIC = object(
  {
    id: text('', { format: 'uuid' }),
    topic: text('As registered'),
    audience: text("The audience's name"),
    audienceId: text('', { format: 'uuid' }),
    created_at: text('', { format: 'date-time' }),
    updated_at: text('', { format: 'date-time' }),
    ...TOPIC_PROPERTIES,
  },
  ['id', 'topic', 'audience', 'audienceId', 'created_at', 'updated_at', 'durable'],
);

const HOOK = object(
  {
    topic: text('May be left out for a broadcast', { examples: ['system/events'] }),
    action: text('', { enum: ['publish', 'broadcast'] }),
    message: { type: 'object', description: 'The payload', examples: [{ type: 'database' }] },
    scope: text(
      'Role service or admin. Default: the only one that the catalogue gives the topic, else global',
      {
        enum: ['local', 'global'],
      },
    ),
  },
  ['action', 'message'],
);

const communityCall = (field: 'managers' | 'members') => ({
  put: {
    tags: ['Inbox'],
    summary: `Replaces the ${field} of a community (role service or admin)`,
    parameters: [path('id', "The community's id")],
    requestBody: body(object({ [field]: { type: 'array', items: text('') } })),
    responses: {
      200: answer(
        'As it is now',
        object({ community: text(''), [field]: { type: 'array', items: text('') } }),
      ),
      ...problems('forbidden'),
    },
  },
});

/** OpenAPI 3.1. */
export const OPENAPI = {
  openapi: '3.1.0',
  info: {
    title: 'Posthorn',
    version: '1',
    description:
      'The REST calls of the gateway. Sockets are at /ws, with a key from GET /v1/sign. A gateway with ' +
      'COURIER_COMPAT=1 answers the Courier calls as the original did, unless Posthorn-Version: 1 asks for these.',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
  },
  security: [{ jwt: [] }],
  paths: {
    '/v1/audience': {
      post: {
        tags: ['Courier'],
        summary: 'Creates the audience of the token; until then every other call answers audience_not_found',
        responses: {
          201: answer('Created', ref('Audience')),
          200: answer('It exists', ref('Audience')),
          ...problems(),
        },
      },
    },
    '/v1/topic': {
      post: {
        tags: ['Courier'],
        summary: 'Registers a topic. A topic needs no registration to be used',
        requestBody: body(
          object({ topic: text('', { examples: ['system/events'] }), ...TOPIC_PROPERTIES }, ['topic']),
        ),
        responses: {
          201: answer('Created', ref('Topic')),
          200: answer('It exists, unchanged', ref('Topic')),
          ...problems('forbidden', 'topic_conflict'),
        },
      },
      get: {
        tags: ['Courier'],
        summary: 'The registered topics of the audience',
        responses: { 200: answer('All of them', { type: 'array', items: ref('Topic') }), ...problems() },
      },
    },
    '/v1/hook': {
      post: {
        tags: ['Courier'],
        summary: 'Publishes or broadcasts; answers once the event is stored',
        parameters: [
          {
            name: 'Idempotency-Key',
            in: 'header',
            schema: text('The same key again within two minutes is stored once', { maxLength: 255 }),
          },
          { name: 'traceparent', in: 'header', schema: text('W3C trace context, passed on') },
        ],
        requestBody: body(HOOK),
        responses: {
          200: {
            ...answer('The same object', HOOK),
            headers: { 'Posthorn-Position': { schema: text('Where the event is stored') } },
          },
          ...problems(
            'forbidden',
            'idempotency_conflict',
            'payload_invalid',
            'payload_too_large',
            'rate_limited',
            'publish_quota',
            'storage_quota',
          ),
        },
      },
    },
    '/v1/sign': {
      get: {
        tags: ['Courier'],
        summary:
          'A key for a socket, good for connecting within 60 s; with for=stream one for an event stream',
        parameters: [query('for', text('', { enum: ['socket', 'stream'], default: 'socket' }))],
        responses: {
          200: answer('The key, and the URL that holds it', object({ key: text(''), url: text('') })),
          ...problems(),
        },
      },
    },
    '/v1/revocations': {
      post: {
        tags: ['Courier'],
        summary: 'Ends a token, the tokens of a user, or all of the audience (role admin)',
        requestBody: body(
          object(
            {
              tokenId: text('jti of one token; alone'),
              sub: text('The user whose tokens end'),
              issuedBefore: { type: 'integer', description: 'Seconds since 1970; default now' },
            },
            [],
          ),
        ),
        responses: {
          200: answer('Revoked everywhere', { type: 'object' }),
          202: answer('Stored; gateways hear of it shortly', { type: 'object' }),
          ...problems('forbidden'),
        },
      },
    },
    '/v1/notifications': {
      get: {
        tags: ['Inbox'],
        summary: "A page of the caller's notifications, newest first",
        parameters: [
          query('read', { type: 'boolean' }),
          query('limit', { type: 'integer', minimum: 1, maximum: PAGE.max, default: PAGE.default }),
          query('cursor', text('next_cursor of the page before')),
        ],
        responses: {
          200: answer(
            'Acknowledged and withdrawn ones are neither listed nor counted',
            object({
              items: { type: 'array', items: ref('UserNotification') },
              unread_count: { type: 'integer' },
              version: { type: 'integer', description: 'Grows with every change of the inbox' },
              next_cursor: { type: ['string', 'null'] },
            }),
          ),
          ...problems('forbidden'),
        },
      },
    },
    '/v1/communities/{id}/managers': communityCall('managers'),
    '/v1/communities/{id}/members': communityCall('members'),
  },
  components: {
    securitySchemes: { jwt: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
    schemas: {
      Audience: AUDIENCE,
      Topic: TOPIC,
      UserNotification: { ...UserNotification },
      Problem: object(
        {
          type: text(''),
          title: text(''),
          status: { type: 'integer' },
          detail: text(''),
          code: text('', { enum: Object.keys(PROBLEMS) }),
          errors: {
            type: 'array',
            items: object({ path: text('JSON pointer'), message: text('') }),
          },
        },
        ['type', 'title', 'status', 'detail', 'code'],
      ),
    },
  },
};
