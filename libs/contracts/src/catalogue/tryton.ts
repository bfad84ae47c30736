/** The channels of docs/protocols/tryton.md. */
import { defineTopics } from './entry.js';
import { AnyObject } from './shapes.js';

const channel = {
  scopes: ['global'],
  separator: ':',
  publishers: ['trytond'],
  subscribers: ['client'],
  payload: AnyObject,
  source: 'tryton',
} as const;

export const trytonTopics = defineTopics({
  user: {
    ...channel,
    access: 'owner',
    parameter: { name: 'sub', owner: 'sub' },
    description: 'Messages for every client of one user.',
  },
  client: {
    ...channel,
    access: 'secret',
    parameter: { name: 'id', secret: true },
    description: 'Messages for one client, whose id only it and its server know.',
  },
});
