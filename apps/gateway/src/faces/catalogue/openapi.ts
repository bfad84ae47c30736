import { problems, query, ref, text } from '../../http/openapi-parts.js';

/** The call of docs/protocols/events.md, "AsyncAPI". */
export const CATALOGUE_PATHS = {
  '/v1/asyncapi.json': {
    get: {
      tags: ['Catalogue'],
      summary:
        'The AsyncAPI 3.0 document of the topics; with a token also those that the audience registered',
      security: [{}, { jwt: [] }],
      parameters: [
        query('after', text('info.x-posthorn-next of a document that did not hold all', { format: 'uuid' })),
        { name: 'If-None-Match', in: 'header', schema: text('ETag of a document that the caller has') },
      ],
      responses: {
        200: {
          description: 'The document',
          headers: { ETag: { schema: text('Changes with the document') } },
          content: { 'application/json': { schema: ref('AsyncApi') } },
        },
        304: { description: 'It is the one that the caller has' },
        ...problems('rate_limited'),
      },
    },
  },
};

export const ASYNC_API = {
  type: 'object',
  description: 'https://www.asyncapi.com/docs/reference/specification/v3.0.0',
  properties: { asyncapi: { const: '3.0.0' } },
  required: ['asyncapi'],
};
