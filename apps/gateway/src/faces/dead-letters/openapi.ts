import { PAGE } from '@posthorn/contracts';
import { answer, body, object, path, problems, query, text } from '../../http/openapi-parts.js';

const EVENT = {
  id: text("The event's id"),
  topic: text(''),
  scope: text('', { enum: ['local', 'global'] }),
  source: { type: ['string', 'null'] },
  time: text('When it was stored', { format: 'date-time' }),
  position: { type: ['string', 'null'] },
};

const LETTER = {
  id: text(''),
  consumer: text('The durable consumer that gave the event up'),
  code: text('managers_unknown, payload_invalid, tries_exhausted, …'),
  reason: text(''),
  tries: { type: 'integer' },
  redrives: { type: 'integer', description: 'How often it was redriven and failed again' },
  time: text('When it was given up, for the last time', { format: 'date-time' }),
};

const redriving = answer(
  'They are given to their consumers again, once each',
  object({ redriving: { type: 'integer', description: 'Letters that were not on their way yet' } }),
);

const id = path('id', "The letter's id");

/** The calls of docs/protocols/esn.md, "Dead letters". */
export const DEAD_LETTER_PATHS = {
  '/v1/dead-letters': {
    get: {
      tags: ['Dead letters'],
      summary: "A page of the audience's dead letters, the oldest first (role admin)",
      parameters: [
        query('cursor', text('next_cursor of the page before')),
        query('limit', { type: 'integer', minimum: 1, maximum: PAGE.max, default: PAGE.default }),
        query('consumer', text('Only those of this consumer')),
        query('code', text('Only those with this code')),
      ],
      responses: {
        200: answer(
          'Those that wait for somebody to redrive or delete them',
          object({
            items: { type: 'array', items: object({ ...LETTER, event: object(EVENT) }) },
            next_cursor: { type: ['string', 'null'] },
          }),
        ),
        ...problems('forbidden'),
      },
    },
  },
  '/v1/dead-letters/{id}': {
    get: {
      tags: ['Dead letters'],
      summary: 'A dead letter with all of its event (role admin)',
      parameters: [id],
      responses: {
        200: answer(
          'payload where it is JSON, else payload_base64',
          object({
            ...LETTER,
            event: object(
              {
                ...EVENT,
                headers: { type: 'object', additionalProperties: { type: 'string' } },
                payload: {},
                payload_base64: text('', { contentEncoding: 'base64' }),
              },
              [...Object.keys(EVENT), 'headers'],
            ),
          }),
        ),
        ...problems('forbidden', 'dead_letter_not_found'),
      },
    },
    delete: {
      tags: ['Dead letters'],
      summary: 'Deletes a dead letter (role admin)',
      parameters: [id],
      responses: {
        204: { description: 'It is gone for good' },
        ...problems('forbidden', 'dead_letter_not_found'),
      },
    },
  },
  '/v1/dead-letters/{id}/redrive': {
    post: {
      tags: ['Dead letters'],
      summary: 'Gives the event to the consumer that gave it up, and to nobody else (role admin)',
      parameters: [id],
      responses: { 202: redriving, ...problems('forbidden', 'dead_letter_not_found') },
    },
  },
  '/v1/dead-letters/redrive': {
    post: {
      tags: ['Dead letters'],
      summary: "Redrives all of the audience's dead letters, or those of a consumer or a code (role admin)",
      requestBody: body(object({ all: { const: true }, consumer: text(''), code: text('') }, ['all'])),
      responses: { 202: redriving, ...problems('forbidden') },
    },
  },
};
