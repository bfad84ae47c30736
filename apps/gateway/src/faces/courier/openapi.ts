import { RETENTION } from '@posthorn/contracts';
import { answer, body, object, problems, query, ref, text } from '../../http/openapi-parts.js';

export const AUDIENCE = object({
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

export const TOPIC = object(
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
      'Role service or admin. Default: the only one that the catalogue gives the topic, else global. On both: one event under one id; where one of the two is missing, the error says which, and the same Idempotency-Key completes it',
      {
        enum: ['local', 'global', 'both'],
      },
    ),
  },
  ['action', 'message'],
);

/** The calls of docs/protocols/courier.md. */
export const COURIER_PATHS = {
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
          headers: {
            'Posthorn-Position': {
              schema: text('Where the event is stored; on both scopes, where the global one is'),
            },
            'Posthorn-Event-Id': { schema: text("The event's id, percent-encoded") },
          },
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
      summary: 'A key for a socket, good for connecting within 60 s; with for=stream one for an event stream',
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
};
