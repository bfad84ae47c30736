/** `@posthorn/bus/nest`: a Nest transport on durable consumers. */
export {
  type EventPayload,
  JetStreamContext,
  JetStreamServer,
  type JetStreamServerOptions,
} from './jetstream-server.js';
export { SettlementFilter } from './settlement-filter.js';
