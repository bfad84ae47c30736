/** The event bus: its port, the JetStream driver, the server SDK, and a Nest transport. */
export { DEAD_HEADER, type DeadLetter, readDeadLetter } from './dead-letters.js';
export { checkEventId } from './jetstream/event-id.js';
export { JetStreamBus, type JetStreamBusOptions } from './jetstream/jetstream-bus.js';
export { judgePosition, type RetentionBound, type StreamExtent } from './jetstream/resume.js';
export {
  describeDifference,
  inspectStreams,
  ProvisioningError,
  provisionStreams,
  STREAM_DEFAULTS,
  type StreamLimits,
  streamConfigs,
  type WantedStream,
} from './jetstream/stream-config.js';
export type { Lookup, TopicDirectory } from './jetstream/topic-directory.js';
export {
  type EventPayload,
  JetStreamContext,
  JetStreamServer,
  type JetStreamServerOptions,
} from './nest/jetstream-server.js';
export { SettlementFilter } from './nest/settlement-filter.js';
export type {
  Bus,
  BusEvent,
  BusObserver,
  Delivery,
  Draft,
  DropReason,
  DurableHandler,
  DurableOptions,
  DurableSubscription,
  EphemeralEvent,
  EphemeralHandler,
  EphemeralInterest,
  History,
  Interest,
  LiveHandler,
  LiveSubscription,
  Receipt,
  ResumeHandler,
  Resumption,
  ResumptionStart,
} from './port.js';
export {
  connectPubSub,
  type EventInfo,
  filtersOf,
  type Handler,
  type PublishOptions,
  type PubSub,
  type PubSubOptions,
  type PubSubSubscription,
  publishTopic,
  type ScopedPubSub,
  type SubscribeOptions,
  type TopicHandle,
} from './pubsub.js';
export { BACKOFF, PermanentFailure, type Settlement, settleFailure } from './settlement.js';
