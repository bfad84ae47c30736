import { MARKS, PAGE } from '@posthorn/contracts';
import {
  answer,
  body,
  object,
  path,
  problems,
  query,
  ref,
  type Schema,
  text,
} from '../../http/openapi-parts.js';
import { RECIPIENTS, TARGETS } from './external-notification.js';

const COUNT: Record<string, Schema> = {
  unread_count: { type: 'integer', description: 'Those neither read, nor acknowledged, nor withdrawn' },
  version: {
    type: 'integer',
    description: 'Grows by one for each usernotification:created and usernotification:updated of the inbox',
  },
};

const value = { type: 'boolean' };

const mark = (summary: string) => ({
  put: {
    tags: ['Inbox'],
    summary,
    parameters: [path('id', "The notification's id")],
    requestBody: body(object({ value })),
    responses: {
      200: answer('The notification as it is now; a withdrawn one stays as it is', ref('UserNotification')),
      ...problems('forbidden', 'notification_not_found'),
    },
  },
});

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
            ...COUNT,
            next_cursor: { type: ['string', 'null'] },
          }),
        ),
        ...problems('forbidden'),
      },
    },
    post: {
      tags: ['Inbox'],
      summary: 'Notifies users and the members of communities (role service or admin)',
      parameters: [
        {
          name: 'idempotency-key',
          in: 'header',
          schema: text('The same call with the same key notifies nobody twice', {
            minLength: 1,
            maxLength: 255,
          }),
        },
        { name: 'traceparent', in: 'header', schema: text('W3C trace context, passed on') },
      ],
      requestBody: body(
        object(
          {
            title: text(''),
            action: text('What happened: label and text of the verb'),
            object: { description: 'The id of what it is about, in any form' },
            link: text('Where the user is led to'),
            level: text('How urgent it is, such as info'),
            data: { description: 'Anything; kept on the notification' },
            target: {
              type: 'array',
              minItems: 1,
              maxItems: TARGETS,
              description: `Come to at most ${RECIPIENTS} recipients, each notified once`,
              items: object({
                objectType: text('', { enum: ['user', 'community'] }),
                id: { description: 'An id in any form' },
              }),
            },
          },
          ['title', 'action', 'object', 'link', 'level', 'target'],
        ),
      ),
      responses: {
        201: {
          ...answer(
            "Every recipient's event is stored",
            object({
              recipients: { type: 'integer' },
              events: { type: 'array', items: object({ id: text("The event's id"), target: text('') }) },
            }),
          ),
          headers: {
            'Idempotency-Key': { schema: text('The key that the call got, where it came without one') },
          },
        },
        ...problems(
          'forbidden',
          'idempotency_conflict',
          'payload_too_large',
          'publish_quota',
          'storage_quota',
        ),
      },
    },
  },
  '/v1/notifications/unread': {
    get: {
      tags: ['Inbox'],
      summary: "How the caller's inbox stands",
      responses: { 200: answer('As of now', object(COUNT)), ...problems('forbidden') },
    },
  },
  '/v1/notifications/read': {
    put: {
      tags: ['Inbox'],
      summary: 'Marks several notifications, or all that are listed, as read or unread',
      requestBody: body({
        oneOf: [
          object({ ids: { type: 'array', maxItems: MARKS, items: text('') }, value }),
          object({ all: { const: true }, value }),
        ],
      }),
      responses: {
        200: answer(
          'What is none of the inbox is passed over',
          object({ updated: { type: 'integer', description: 'How many were not so before' }, ...COUNT }),
        ),
        ...problems('forbidden'),
      },
    },
  },
  '/v1/notifications/{id}/read': mark('Marks a notification as read or unread'),
  '/v1/notifications/{id}/acknowledged': mark('Marks a notification as acknowledged, or takes that back'),
};
