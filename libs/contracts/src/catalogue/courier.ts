/** The reserved topic of docs/protocols/courier.md. */
import { defineTopics } from './entry.js';
import { AnyObject } from './shapes.js';

export const courierTopics = defineTopics({
  __broadcast__: {
    scopes: ['global'],
    access: 'open',
    publishers: [],
    subscribers: [],
    payload: AnyObject,
    source: 'courier',
    description: 'Goes once to every socket and event stream of the audience, whatever it subscribed to.',
  },
});
