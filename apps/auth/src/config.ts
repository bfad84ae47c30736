import { databaseTls } from '@posthorn/database';
import {
  atLeastOne,
  type ConfigOf,
  databaseFields,
  duration,
  integer,
  natsFields,
  natsLogin,
  natsTls,
  readConfig,
  shared,
  tracingHeaders,
} from '@posthorn/service';

/** The auth app's environment variables. */
export const AUTH_FIELDS = {
  nodeEnv: shared.nodeEnv,
  ...natsFields,
  ...databaseFields,
  databasePool: shared.databasePool,
  jwtSecret: shared.jwtSecret,
  jwksUrl: shared.jwksUrl,
  jwtIssuer: shared.jwtIssuer,
  keySecret: shared.keySecret,
  port: integer('PORT', {
    min: 0,
    max: 65_535,
    default: 8081,
    description: 'Port of the probes; 0 takes a free one',
  }),
  host: shared.host,
  instance: shared.instance,
  logLevel: shared.logLevel,
  logFormat: shared.logFormat,
  otlpEndpoint: shared.otlpEndpoint,
  otlpHeaders: shared.otlpHeaders,
  streamReplicas: integer('STREAM_REPLICAS', {
    min: 1,
    max: 5,
    default: 1,
    description: 'Copies of each stream and KV bucket in a NATS cluster',
  }),
  revocationRetention: duration('REVOCATION_RETENTION', {
    min: 60_000,
    optional: true,
    description:
      'How long a revocation is kept: longer than any token lives, or its token is accepted again. Not set: for ever',
  }),
  courierCompat: shared.courierCompat,
} as const;

export type AuthConfig = ConfigOf<typeof AUTH_FIELDS>;

/** @throws {ConfigError} naming every variable that is missing or not acceptable. */
export function readAuthConfig(env: NodeJS.ProcessEnv): AuthConfig {
  return readConfig(AUTH_FIELDS, {
    env,
    rules: [natsLogin, natsTls, tracingHeaders, databaseTls, atLeastOne(AUTH_FIELDS, 'jwtSecret', 'jwksUrl')],
  });
}
