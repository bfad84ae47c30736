/** The catalogue: every documented topic, by its name. */
import type { Static } from '@sinclair/typebox';
import { courierTopics } from './courier.js';
import type { CatalogueEntry } from './entry.js';
import { esnTopics } from './esn.js';
import { intheAmTopics } from './inthe-am.js';
import { trytonTopics } from './tryton.js';

const topics = { ...esnTopics, ...intheAmTopics, ...trytonTopics, ...courierTopics };

/** The name of a documented topic; of a template, without its parameter. */
export type TopicName = keyof typeof topics;

/** The payload of a documented topic. Payloads may hold more members than their type names. */
export type PayloadOf<Name extends TopicName> = Static<(typeof topics)[Name]['payload']>;

/** The name of a documented template whose topics are written `<name>.<username>`: `personal`, `taskd.certificate`. */
export type UserTopicName = {
  [Name in TopicName]: (typeof topics)[Name] extends { readonly separator: '.' } ? Name : never;
}[TopicName];

/** Every documented topic. Aliases are not keys here: an entry lists its own. */
export const CATALOGUE: ReadonlyMap<string, CatalogueEntry> = new Map(
  Object.entries<Omit<CatalogueEntry, 'name'>>(topics).map(([name, topic]) => [name, { name, ...topic }]),
);
