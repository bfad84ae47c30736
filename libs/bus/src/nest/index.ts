/** `@posthorn/bus/nest`: the server SDK as a Nest module, and a Nest transport on durable consumers. */
export {
  type EventPayload,
  JetStreamContext,
  JetStreamServer,
  type JetStreamServerOptions,
} from './jetstream-server.js';
export { InjectPubSub, type PosthornAsyncOptions, PosthornModule, PUBSUB } from './posthorn.module.js';
export { SettlementFilter } from './settlement-filter.js';
