import { body, object, path, problems, query, text } from '../../http/openapi-parts.js';

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
        query('topic', {
          type: 'array',
          items: text('A topic or pattern as it is: its name may hold a comma'),
        }),
        since,
        LAST_EVENT_ID,
      ],
      responses,
    },
    post: {
      tags: ['Event streams'],
      summary:
        'What a socket brings down, for clients that no WebSocket gets through to: each data: is one frame of it',
      requestBody: body(
        object(
          {
            subscriptions: {
              type: 'array',
              items: object(
                {
                  topic: text('Topic or pattern'),
                  since: text('A position or cursor: what came after it comes first'),
                  ref: text("Stands in the answer to this subscription; default: the topic's name", {
                    maxLength: 256,
                  }),
                },
                ['topic'],
              ),
            },
            broadcasts: text('A position or cursor: broadcasts after it come first'),
          },
          ['subscriptions'],
        ),
      ),
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
