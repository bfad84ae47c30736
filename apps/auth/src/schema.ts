/** The tables of auth. */
import { StoredRevocation } from './entities.js';
import { Revocation1800000000000 } from './migrations/1800000000000-revocation.js';
import { ApiToken1800000500000 } from './migrations/1800000500000-api-token.js';
import { StoredToken } from './tokens/stored-token.js';

/** The migrations in the order in which they run. */
export const SCHEMA = {
  entities: [StoredRevocation, StoredToken],
  migrations: [Revocation1800000000000, ApiToken1800000500000],
};
