/** What the image runs, and the environment that each of it wants. */
import { MIGRATION_FIELDS } from '@posthorn/database';
import { BUDGETS, type ConfigRow, describeConfig, PHASES, readConfig } from '@posthorn/service';
import { AUTH_FIELDS } from '../../apps/auth/src/config.js';
import { GATEWAY_FIELDS, shutdownBudgets } from '../../apps/gateway/src/config.js';
import { NOTIFIER_FIELDS } from '../../apps/notifier/src/config.js';
import { REGISTRY_FIELDS } from '../../apps/registry/src/config.js';

/** Values by the name of the variable; undefined is set, to what cannot be seen. */
export type Environment = ReadonlyMap<string, string | undefined>;

/** By the image's argument, the variables that are read. */
export const CONFIGURATION: Readonly<Record<string, readonly ConfigRow[]>> = {
  gateway: describeConfig(GATEWAY_FIELDS),
  auth: describeConfig(AUTH_FIELDS),
  registry: describeConfig(REGISTRY_FIELDS),
  notifier: describeConfig(NOTIFIER_FIELDS),
  migrate: describeConfig(MIGRATION_FIELDS),
};

export const APPS = ['gateway', 'auth', 'registry', 'notifier'] as const;

/** The variables that hold secrets. */
export const SECRET_NAMES: ReadonlySet<string> = new Set(
  Object.values(CONFIGURATION).flatMap((rows) => rows.filter(({ secret }) => secret).map(({ name }) => name)),
);

/** Set by the image, for whatever it runs. */
const BY_IMAGE = ['NODE_ENV', 'PORT'];

/** What an app does not start without in production. JWT_SECRET or JWKS_URL is a demand of its own. */
export function requiredNames(rows: readonly ConfigRow[]): string[] {
  return rows.filter(({ required }) => required !== 'no').map(({ name }) => name);
}

/** What is wrong with an environment, as sentences. */
export function environmentFindings(title: string, argument: string, env: Environment): string[] {
  const rows = CONFIGURATION[argument];
  if (!rows) return [`${title}: the image runs nothing that is called ${argument}`];
  const known = [...BY_IMAGE, ...rows.map(({ name }) => name)];
  const unverified = known.includes('JWT_SECRET') && !env.has('JWT_SECRET') && !env.get('JWKS_URL');
  return [
    ...[...env.keys()].filter((name) => !known.includes(name)).map((name) => `${title}: ${name} is not read`),
    ...requiredNames(rows)
      .filter((name) => !env.has(name))
      .map((name) => `${title}: ${name} is missing`),
    ...(unverified ? [`${title}: neither JWT_SECRET nor JWKS_URL`] : []),
  ];
}

/** How long an app may take from SIGTERM to its end, in seconds. */
export function shutdownSeconds(app: string, env: Environment): number {
  const { drainDelay, drainBudget } = GATEWAY_FIELDS;
  const drain = readConfig({ drainDelay, drainBudget }, { env: Object.fromEntries(env) });
  const budgets = { ...BUDGETS, ...(app === 'gateway' && shutdownBudgets(drain)) };
  // A shutdown that is out of time ends the process a second later.
  return PHASES.reduce((sum, phase) => sum + budgets[phase], 0) / 1_000 + 1;
}
