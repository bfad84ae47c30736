import { databaseTls } from '@posthorn/database';
import {
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

const DAY_MS = 24 * 3_600_000;
const RETENTION_MIN = 7 * DAY_MS;
const RETENTION_MAX = 3_650 * DAY_MS;
const RETENTION_DEFAULT = 90 * DAY_MS;

/** The notifier's environment variables. */
export const NOTIFIER_FIELDS = {
  nodeEnv: shared.nodeEnv,
  ...natsFields,
  ...databaseFields,
  databasePool: shared.databasePool,
  port: integer('PORT', {
    min: 0,
    max: 65_535,
    default: 8083,
    description: 'Port of the probes; 0 takes a free one',
  }),
  host: shared.host,
  instance: shared.instance,
  logLevel: shared.logLevel,
  logFormat: shared.logFormat,
  otlpEndpoint: shared.otlpEndpoint,
  otlpHeaders: shared.otlpHeaders,
  inFlight: integer('EVENTS_IN_FLIGHT', {
    min: 1,
    max: 20_000,
    default: 1_024,
    description: 'Events that all notifiers of an instance together have in work at once',
  }),
  ackWait: duration('ACK_WAIT', {
    min: 1_000,
    max: 3_600_000,
    default: 30_000,
    description: 'After which the events of a notifier that died are given to another',
  }),
  batchSize: integer('BATCH_SIZE', {
    min: 1,
    max: 5_000,
    default: 400,
    description: 'Events that are written in one transaction at most',
  }),
  notificationRetention: duration('NOTIFICATION_RETENTION', {
    min: RETENTION_MIN,
    max: RETENTION_MAX,
    default: RETENTION_DEFAULT,
    description:
      'Age at which a notification is removed from its inbox, and an event makes none any more. Not below the 7d ' +
      'for which streams keep events by default: what is delivered once more must find what it made',
  }),
  timelineRetention: duration('TIMELINE_RETENTION', {
    min: RETENTION_MIN,
    max: RETENTION_MAX,
    default: RETENTION_DEFAULT,
    description: 'The same for what stands on timelines',
  }),
} as const;

export type NotifierConfig = ConfigOf<typeof NOTIFIER_FIELDS>;

/** @throws {ConfigError} naming every variable that is missing or not acceptable. */
export function readNotifierConfig(env: NodeJS.ProcessEnv): NotifierConfig {
  return readConfig(NOTIFIER_FIELDS, { env, rules: [natsLogin, natsTls, tracingHeaders, databaseTls] });
}
