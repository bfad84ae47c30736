/**
 * `@posthorn/bus/platform`: the bus's port, its JetStream driver and the streams' provisioning. For the platform's
 * own apps; a service uses the SDK, whose promises these parts do not make.
 */
export { idOnBoth, publishOnBoth } from './both-scopes.js';
export {
  DEAD_HEADER,
  type DeadLetter,
  type Redrivable,
  readDeadLetter,
  storeRedrive,
} from './dead-letters.js';
export { checkEventId } from './jetstream/event-id.js';
export { headersOf } from './jetstream/headers.js';
export { Intake, type IntakeOptions } from './jetstream/intake.js';
export { JetStreamBus, type JetStreamBusOptions } from './jetstream/jetstream-bus.js';
export { judgePosition, type RetentionBound, type StreamExtent } from './jetstream/resume.js';
export {
  bucketOptions,
  describeDifference,
  inspectBucket,
  inspectStreams,
  ProvisioningError,
  provisionStreams,
  STREAM_DEFAULTS,
  type StreamDifference,
  type StreamLimits,
  type StreamState,
  streamConfigs,
  type WantedStream,
} from './jetstream/stream-config.js';
export type { Lookup, TopicDirectory } from './jetstream/topic-directory.js';
export type {
  Bus,
  Draft,
  DurableHandler,
  DurableOptions,
  DurableSubscription,
  EphemeralHandler,
  EphemeralInterest,
  History,
  Interest,
  LiveHandler,
  LiveSubscription,
  ResumeHandler,
  Resumption,
  ResumptionStart,
} from './port.js';
export { filtersOf, publishTopic } from './pubsub.js';
export { type Settlement, settleFailure } from './settlement.js';
export { type NatsTls, natsTlsOptions } from './tls.js';
export { attributesOf, nameOf } from './tracing.js';
