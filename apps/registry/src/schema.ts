/** The tables of the registry. */
import { Audience, RegisteredTopic, StreamGeneration } from './entities.js';
import { Registry1800000000000 } from './migrations/1800000000000-registry.js';
import { Usage1800000100000 } from './migrations/1800000100000-usage.js';

/** The migrations in the order in which they run. */
export const SCHEMA = {
  entities: [Audience, RegisteredTopic, StreamGeneration],
  migrations: [Registry1800000000000, Usage1800000100000],
};
