import { path, problems, query, text } from '../../http/openapi-parts.js';

const LAST_EVENT_ID = {
  name: 'Last-Event-ID',
  in: 'header',
  schema: text("The last id that the client had: browsers send it themselves. Counts before 'since'"),
};
const since = query('since', text('A position or cursor: what came after it comes first'));
const responses = {
  200: { description: 'Server-Sent Events', content: { 'text/event-stream': { schema: text('') } } },
  ...problems('forbidden', 'subscription_limit'),
};

export const STREAM_PATHS = {
  '/v1/stream': {
    get: {
      tags: ['Event streams'],
      summary:
        'Events as they come, and those that were missed; by a JWT, or by a key from GET /v1/sign?for=stream',
      security: [{ jwt: [] }, { streamKey: [] }],
      parameters: [
        query(
          'topics',
          text("Topics and patterns, separated by commas; default: announcements and the caller's own"),
        ),
        since,
        LAST_EVENT_ID,
      ],
      responses,
    },
  },
  '/status/{key}': {
    get: {
      tags: ['Event streams'],
      summary: 'The same under the names of the original Inthe.AM status page',
      security: [],
      parameters: [
        path('key', 'From GET /v1/sign?for=stream'),
        query('head', text("The head of the user's task store, as the client knows it")),
        since,
        LAST_EVENT_ID,
      ],
      responses,
    },
  },
};

export const STREAM_KEY = { type: 'apiKey', in: 'query', name: 'token' };
