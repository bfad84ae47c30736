import { type ConfigOf, duration, integer, readConfig, shared } from '@posthorn/service';

/** The notifier's environment variables. */
export const NOTIFIER_FIELDS = {
  natsUrl: shared.natsUrl,
  natsUser: shared.natsUser,
  natsPassword: shared.natsPassword,
  natsCreds: shared.natsCreds,
  databaseUrl: shared.databaseUrl,
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
} as const;

export type NotifierConfig = ConfigOf<typeof NOTIFIER_FIELDS>;

/** @throws {ConfigError} naming every variable that is missing or not acceptable. */
export function readNotifierConfig(env: NodeJS.ProcessEnv): NotifierConfig {
  return readConfig(NOTIFIER_FIELDS, { env });
}
