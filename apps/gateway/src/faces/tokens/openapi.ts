import { API_SCOPES, API_TOKEN_LIMIT, PAGE } from '@posthorn/contracts';
import { answer, body, object, path, problems, query, text } from '../../http/openapi-parts.js';

const time = (description: string) => text(description, { format: 'date-time' });
const timeOrNull = (description: string) => ({ ...time(description), type: ['string', 'null'] });

const name = text('What tells it from others', { minLength: 1, maxLength: 100 });
const scopes = {
  type: 'array',
  items: { type: 'string', enum: [...API_SCOPES] },
  minItems: 1,
  uniqueItems: true,
};

const TOKEN = {
  id: text('', { format: 'uuid' }),
  name,
  scopes,
  created_by: { type: ['string', 'null'], description: 'The sub of the admin who issued it' },
  created_at: time(''),
  last_used_at: timeOrNull('To the minute; null before the first use'),
  expires_at: timeOrNull('Null: it ends by being revoked'),
};

/** The calls of docs/protocols/livestorm.md, "API tokens". */
export const TOKEN_PATHS = {
  '/v1/tokens': {
    post: {
      tags: ['API tokens'],
      summary: `Issues an API token for the audience, which may have ${API_TOKEN_LIMIT} (role admin)`,
      requestBody: body(object({ name, scopes, expires_at: time('A time to come') }, ['name', 'scopes'])),
      responses: {
        201: answer(
          'The token is shown this once',
          object({ ...TOKEN, token: text('', { pattern: '^ph_[0-9a-f]{32}_[0-9a-f]{64}$' }) }),
        ),
        ...problems('forbidden', 'token_limit'),
      },
    },
    get: {
      tags: ['API tokens'],
      summary: 'A page of the API tokens that were not revoked, the newest first (role admin)',
      parameters: [
        query('cursor', text('next_cursor of the page before')),
        query('limit', { type: 'integer', minimum: 1, maximum: PAGE.max, default: PAGE.default }),
      ],
      responses: {
        200: answer(
          'Without their secrets',
          object({
            items: { type: 'array', items: object(TOKEN) },
            next_cursor: { type: ['string', 'null'] },
          }),
        ),
        ...problems('forbidden'),
      },
    },
  },
  '/v1/tokens/{id}': {
    delete: {
      tags: ['API tokens'],
      summary: 'Revokes an API token (role admin)',
      parameters: [path('id', "The token's id")],
      responses: {
        202: { description: 'Stored; some gateways may not have heard of it yet' },
        204: { description: 'It is refused everywhere' },
        ...problems('forbidden', 'token_not_found'),
      },
    },
  },
};
