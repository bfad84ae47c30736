import { answer, body, object, path, problems, text } from '../../http/openapi-parts.js';

/** The call of docs/protocols/tryton.md. */
export const BUS_PATHS = {
  '/{database}/bus': {
    post: {
      tags: ['Tryton'],
      summary: 'Waits for the next message on some channels; nulls where none came in time',
      security: [{ jwt: [] }, { trytonSession: [] }],
      parameters: [path('database', "The audience's name")],
      requestBody: body(
        object(
          {
            last_message: text('message_id of the last message; null, or left out: recent ones first', {
              type: ['string', 'null'],
            }),
            channels: {
              type: 'array',
              items: text("Each user: channel stands for the caller's own, which is always there"),
              maxItems: 128,
            },
          },
          ['channels'],
        ),
      ),
      responses: {
        200: answer(
          'One message',
          object(
            {
              channel: { type: ['string', 'null'] },
              message: {
                type: ['object', 'null'],
                properties: { message_id: text('An opaque cursor'), type: text('Default: the channel') },
              },
              recovered: { const: false, description: 'Messages after last_message are not kept any more' },
            },
            ['channel', 'message'],
          ),
        ),
        ...problems('forbidden', 'subscription_limit', 'rate_limited', 'not_implemented'),
      },
    },
  },
};

export const TRYTON_SESSION = {
  type: 'http',
  scheme: 'Session',
  description: 'base64 of login:user_id:session, whose session is a JWT for that user',
};
