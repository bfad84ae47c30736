/**
 * The server SDK: what a service publishes and subscribes with. Its Nest module and transport are
 * `@posthorn/bus/nest`; what the platform's own apps stand on is `@posthorn/bus/platform`.
 */
export {
  type PayloadOf,
  type ProblemCode,
  ProblemError,
  type Scope,
  type Span,
  type SpanAttributes,
  type SpanOptions,
  type TopicName,
  type Tracer,
  type UserTopicName,
} from '@posthorn/contracts';
export { type Announcement, announce } from './announce.js';
export {
  type Bus,
  type BusAnswer,
  type BusMessage,
  busOf,
  type Current,
  type WaitOptions,
} from './bus-client.js';
export type { NatsCredentials } from './credentials.js';
export type { Debounce } from './debounce.js';
export type { Distinct } from './distinct.js';
export type { By } from './member-values.js';
export type {
  BusEvent,
  BusObserver,
  Delivery,
  DropReason,
  EphemeralEvent,
  Receipt,
} from './port.js';
export {
  connectPubSub,
  type EventInfo,
  type Handler,
  type PublishOptions,
  type PubSub,
  type PubSubOptions,
  type PubSubSubscription,
  type ScopedPubSub,
  type SubscribeOptions,
  type TopicHandle,
} from './pubsub.js';
export { BACKOFF, PermanentFailure } from './settlement.js';
export type { NatsTls } from './tls.js';
