import { answer, body, object, problems, text } from '../../http/openapi-parts.js';

const ID = { type: ['string', 'number', 'null'] };

/** The call of docs/protocols/tryton.md, "Server SDK". */
export const NOTIFY_PATHS = {
  '/v1/notify': {
    post: {
      tags: ['Bus'],
      summary:
        "Pops up a text on a user's clients: the caller's own, or with role service or admin anybody's",
      parameters: [
        {
          name: 'posthorn-client',
          in: 'header',
          schema: text('The calling client, which is notified where the body names neither user nor client'),
        },
        {
          name: 'idempotency-key',
          in: 'header',
          schema: text('The same again within two minutes is stored once', { minLength: 1, maxLength: 255 }),
        },
        { name: 'traceparent', in: 'header', schema: text('W3C trace context, passed on') },
      ],
      requestBody: body(
        object(
          {
            title: text('One line', { minLength: 1, maxLength: 200 }),
            body: { type: ['string', 'null'], description: 'Any number of lines, not markup' },
            priority: {
              type: 'integer',
              minimum: 0,
              maximum: 3,
              default: 1,
              description: '0 is low, 3 is urgent',
            },
            user: { ...ID, description: 'All clients of this user' },
            client: { ...ID, description: 'This client alone' },
          },
          ['title'],
        ),
      ),
      responses: {
        202: answer('It is stored', object({ id: text("The event's id"), position: text('') }, ['id'])),
        ...problems(
          'forbidden',
          'idempotency_conflict',
          'payload_too_large',
          'rate_limited',
          'publish_quota',
          'storage_quota',
        ),
      },
    },
  },
};
