/** How an app is examined: its configuration, then what it connects to, with its own login. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { NatsConnection } from '@nats-io/transport-node';
import { appInbox } from '@posthorn/contracts';
import { ConfigError } from '../config.js';
import { connectOnce, type NatsConfig, natsSettings } from '../nats.js';
import { CHECKS, type CheckId } from './checks.js';
import { type Finding, finding, ok, reasonOf } from './finding.js';
import { natsFindings, unreachable } from './nats.js';

/** How long one question may take, in milliseconds. */
const PATIENCE = 8_000;

/** Looks at everything that an app needs, in an environment; never rejects for what it finds. Changes nothing. */
export type Examine = (env: NodeJS.ProcessEnv) => Promise<Finding[]>;

/**
 * An examination that begins with the configuration, and ends there when that is not acceptable.
 * @param read reads the app's table; throws {@link ConfigError}
 * @param look takes the configuration, and whether it is one of production
 */
export function examination<C>(
  read: (env: NodeJS.ProcessEnv) => C,
  look: (config: C, production: boolean) => Promise<Finding[]>,
): Examine {
  return async (env) => {
    let config: C;
    try {
      config = read(env);
    } catch (error) {
      if (error instanceof ConfigError) return configFindings(error);
      throw error;
    }
    return [
      ok('config.valid', 'every variable is acceptable'),
      ...(await look(config, env.NODE_ENV === 'production')),
    ];
  };
}

function configFindings({ findings }: ConfigError): Finding[] {
  return findings.map(({ name, got, wants }) =>
    finding(
      'config.valid',
      'failure',
      `${name} is ${got}, wants ${wants}`,
      `Set ${name}; docs/configuration.md has every variable.`,
    ),
  );
}

/** What could not be asked within the time is a finding, too: of the check that it was for. */
export async function attempt(id: CheckId, look: () => Promise<Finding[]>): Promise<Finding[]> {
  const over = new AbortController();
  const late = sleep(PATIENCE, undefined, { signal: over.signal }).then(() => {
    throw new Error(`no answer within ${PATIENCE / 1_000} s`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([look(), late]);
  } catch (error) {
    return [
      finding(
        id,
        'failure',
        `${CHECKS[id].of}: cannot be asked, ${reasonOf(error)}`,
        "See that the server is well and that the app's user may ask (accounts.conf of NATS, the role in PostgreSQL), and ask again.",
      ),
    ];
  } finally {
    over.abort();
  }
}

/**
 * Connects to NATS as an app does, once, and looks at what the server says of itself.
 * @param look looks further, on a connection that is closed afterwards
 */
export async function examineNats(
  app: string,
  config: NatsConfig,
  production: boolean,
  look: (nc: NatsConnection) => Promise<Finding[]>,
): Promise<Finding[]> {
  let nc: NatsConnection;
  try {
    nc = await connectOnce({ ...natsSettings(config), name: `doctor-${app}`, inboxPrefix: appInbox(app) });
  } catch (error) {
    return [unreachable(error, config)];
  }
  // Told of what the user may not do: the question itself says so, too.
  nc.closed().catch(() => undefined);
  try {
    return [
      ok('nats.reachable', `connected to ${nc.getServer()}`),
      ...natsFindings(nc.info, config, production),
      ...(await look(nc)),
    ];
  } finally {
    await nc.close();
  }
}
