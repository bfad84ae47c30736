import { EVENT_NAME_LIMIT, ROOM_SCOPES } from '@posthorn/contracts';
import { answer, body, object, problems, type Schema, text } from '../../http/openapi-parts.js';

/** How API tokens are sent, bare; after `Bearer` they are taken too. */
export const API_TOKEN = {
  type: 'apiKey',
  in: 'header',
  name: 'Authorization',
  description: 'An API token of the audience, bare or after Bearer',
};

const id = (description: string): Schema => text(description, { format: 'uuid' });

const publish = (summary: string) => ({
  post: {
    tags: ['Rooms'],
    summary,
    security: [{ apiToken: [] }],
    parameters: [
      {
        name: 'Idempotency-Key',
        in: 'header',
        schema: text('The same key again within two minutes is stored once', {
          minLength: 1,
          maxLength: 255,
        }),
      },
      { name: 'traceparent', in: 'header', schema: text('W3C trace context, passed on') },
    ],
    requestBody: body(
      object({
        scope: object(
          {
            type: text('Which rooms: all of the audience, those of an event, or one', { enum: ROOM_SCOPES }),
            event_id: id('Required by event and session'),
            session_id: id('Required by session'),
          },
          ['type'],
        ),
        payload: object({
          event: object({
            eventName: text('Anything', { minLength: 1, maxLength: EVENT_NAME_LIMIT, examples: ['hello'] }),
            data: {
              type: 'object',
              description: 'What subscribers get as their message',
              examples: [{ foo: 'bar' }],
            },
          }),
        }),
      }),
    ),
    responses: {
      202: answer('It is stored', object({ id: text("The event's id"), position: text('') }, ['id'])),
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
});

/** The calls of docs/protocols/livestorm.md. */
export const ROOM_PATHS = {
  '/api/v1/pub_subs': publish('Publishes an event into rooms; answers once it is stored'),
  '/api/v1/publish': publish('The same call as /api/v1/pub_subs'),
};
