import { STREAM_DEFAULTS } from '@posthorn/bus/platform';
import { databaseTls } from '@posthorn/database';
import {
  type ConfigOf,
  databaseFields,
  integer,
  natsFields,
  natsLogin,
  natsTls,
  readConfig,
  shared,
  tracingHeaders,
  url,
} from '@posthorn/service';

/** The registry's environment variables. */
export const REGISTRY_FIELDS = {
  nodeEnv: shared.nodeEnv,
  ...natsFields,
  natsMonitorUrl: url('NATS_MONITOR_URL', {
    schemes: ['http', 'https'],
    several: true,
    optional: true,
    description: 'Monitoring ports of the NATS servers, for the doctor alone: http://nats-0.nats:8222,…',
  }),
  ...databaseFields,
  databasePool: shared.databasePool,
  port: integer('PORT', {
    min: 0,
    max: 65_535,
    default: 8082,
    description: 'Port of the probes; 0 takes a free one',
  }),
  host: shared.host,
  instance: shared.instance,
  logLevel: shared.logLevel,
  logFormat: shared.logFormat,
  otlpEndpoint: shared.otlpEndpoint,
  otlpHeaders: shared.otlpHeaders,
  streamMaxAge: integer('STREAM_MAX_AGE', {
    min: 60,
    max: 10 * 365 * 24 * 3600,
    default: STREAM_DEFAULTS.maxAgeSeconds,
    description: 'Seconds for which the streams keep events',
  }),
  streamMaxBytes: integer('STREAM_MAX_BYTES', {
    min: 16 * 1024 ** 2,
    default: STREAM_DEFAULTS.maxBytes,
    description: 'Bytes that each event stream holds at most; NATS reserves them',
  }),
  streamReplicas: integer('STREAM_REPLICAS', {
    min: 1,
    max: 5,
    default: STREAM_DEFAULTS.replicas,
    description: 'Copies of each stream and KV bucket in a NATS cluster',
  }),
  topicsPerAudience: integer('TOPICS_PER_AUDIENCE', {
    min: 1,
    max: 1_000_000,
    default: 10_000,
    description: 'Topics that one audience may register',
  }),
  publishesPerDay: integer('PUBLISHES_PER_DAY', {
    default: 2_000_000,
    description: 'Events that one audience may store through gateways in a day (UTC); 0 for any number',
  }),
  storedBytesPerDay: integer('STORED_BYTES_PER_DAY', {
    default: 1024 ** 3,
    description: 'Bytes that one audience may store through gateways in a day (UTC); 0 for any number',
  }),
} as const;

export type RegistryConfig = ConfigOf<typeof REGISTRY_FIELDS>;

/** @throws {ConfigError} naming every variable that is missing or not acceptable. */
export function readRegistryConfig(env: NodeJS.ProcessEnv): RegistryConfig {
  return readConfig(REGISTRY_FIELDS, { env, rules: [natsLogin, natsTls, tracingHeaders, databaseTls] });
}
