import { PAGE } from '@posthorn/contracts';
import { answer, object, problems, query, ref, text } from '../../http/openapi-parts.js';

/** The calls of docs/protocols/esn.md, "Inbox". */
export const INBOX_PATHS = {
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
};
