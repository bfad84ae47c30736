/** The OpenAPI document of the gateway's REST calls, as data: the contracts are in docs/protocols. */
import { PROBLEMS, UserNotification } from '@posthorn/contracts';
import { BUS_PATHS, TRYTON_SESSION } from '../faces/bus/openapi.js';
import { ASYNC_API, CATALOGUE_PATHS } from '../faces/catalogue/openapi.js';
import { COMMUNITY_PATHS } from '../faces/communities/openapi.js';
import { AUDIENCE, COURIER_PATHS, TOPIC } from '../faces/courier/openapi.js';
import { DEAD_LETTER_PATHS } from '../faces/dead-letters/openapi.js';
import { INBOX_PATHS } from '../faces/inbox/openapi.js';
import { NOTIFY_PATHS } from '../faces/notify/openapi.js';
import { API_TOKEN, ROOM_PATHS } from '../faces/rooms/openapi.js';
import { STREAM_KEY, STREAM_PATHS } from '../faces/stream/openapi.js';
import { TIMELINE_ITEM, TIMELINE_PATHS } from '../faces/timeline/openapi.js';
import { TOKEN_PATHS } from '../faces/tokens/openapi.js';
import { object, text, withOperationIds } from './openapi-parts.js';

/** OpenAPI 3.1. */
export const OPENAPI = {
  openapi: '3.1.0',
  info: {
    title: 'Posthorn',
    version: '1',
    description:
      'The REST calls of the gateway. Sockets are at /ws, with a key from GET /v1/sign. A gateway with ' +
      'COURIER_COMPAT=1 answers the Courier calls as the original did, unless Posthorn-Version: 1 asks for these.\n\n' +
      'Topics, and what their events hold: [/v1/asyncapi.json](/v1/asyncapi.json) (AsyncAPI 3.0), to be read in ' +
      'docs/topics.md.',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
  },
  security: [{ jwt: [] }],
  paths: withOperationIds({
    ...CATALOGUE_PATHS,
    ...COURIER_PATHS,
    ...INBOX_PATHS,
    ...NOTIFY_PATHS,
    ...ROOM_PATHS,
    ...COMMUNITY_PATHS,
    ...TIMELINE_PATHS,
    ...DEAD_LETTER_PATHS,
    ...STREAM_PATHS,
    ...BUS_PATHS,
    ...TOKEN_PATHS,
  }),
  components: {
    securitySchemes: {
      jwt: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
      streamKey: STREAM_KEY,
      trytonSession: TRYTON_SESSION,
      apiToken: API_TOKEN,
    },
    schemas: {
      Audience: AUDIENCE,
      Topic: TOPIC,
      AsyncApi: ASYNC_API,
      UserNotification: { ...UserNotification },
      TimelineItem: TIMELINE_ITEM,
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
