import { PAGE, UNREAD_LIMIT } from '@posthorn/contracts';
import { answer, body, object, problems, query, ref, type Schema, text } from '../../http/openapi-parts.js';

const target = { ...query('target', text('The id of a user or a community')), required: true };

const seen: Record<string, Schema> = {
  last_seen: { type: ['string', 'null'], description: 'The id of the last entry that the caller has seen' },
  unread_count: {
    type: 'integer',
    maximum: UNREAD_LIMIT,
    description: `Entries after it; ${UNREAD_LIMIT} stands for that many or more`,
  },
};

const anything: Schema = { description: 'As it was published' };

/** An activity on a timeline. */
export const TIMELINE_ITEM: Schema = {
  ...object(
    {
      id: text(''),
      verb: text(''),
      language: text(''),
      published: text('', { format: 'date-time' }),
      actor: anything,
      object: anything,
      target: { type: 'array', items: anything },
    },
    ['id', 'verb', 'published', 'actor', 'object', 'target'],
  ),
  description: 'Whatever else the publisher gave stands beside these members',
};

/** The calls of docs/protocols/esn.md, "Timeline". */
export const TIMELINE_PATHS = {
  '/v1/timeline': {
    get: {
      tags: ['Timeline'],
      summary: 'A page of the activities of a user or a community, newest first',
      parameters: [
        target,
        query('limit', { type: 'integer', minimum: 1, maximum: PAGE.max, default: PAGE.default }),
        query('cursor', text('next_cursor of the page before')),
      ],
      responses: {
        200: answer(
          'Users read their own and those of their communities',
          object({
            items: { type: 'array', items: ref('TimelineItem') },
            next_cursor: { type: ['string', 'null'] },
          }),
        ),
        ...problems('forbidden'),
      },
    },
  },
  '/v1/timeline/unread': {
    get: {
      tags: ['Timeline'],
      summary: 'How many entries the caller has not seen',
      parameters: [target],
      responses: { 200: answer('As it is now', object(seen)), ...problems('forbidden') },
    },
  },
  '/v1/timeline/seen': {
    put: {
      tags: ['Timeline'],
      summary: 'Notes that the caller has seen an entry and all before it; never goes back',
      requestBody: body(object({ target: text('The id of a user or a community'), id: text('The entry') })),
      responses: {
        200: answer('As it is now', object({ target: text(''), ...seen })),
        ...problems('forbidden', 'timeline_entry_not_found'),
      },
    },
  },
};
