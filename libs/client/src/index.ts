/** Posthorn's SDK for end users: see README.md. */
export {
  type ClientErrorCode,
  type Finding,
  PosthornError,
  type PosthornErrorCode,
  type PosthornErrorDetails,
  type ServerErrorCode,
} from './error.js';
export { Inbox, type InboxChange, type InboxListOptions, type InboxPage } from './inbox.js';
export type { UserNotification } from './inbox-state.js';
export { Posthorn } from './posthorn.js';
export { PubSub, type RoomHandler, type RoomPublish, type RoomScope, Rooms } from './pubsub.js';
export type {
  ClientEvents,
  ConnectionState,
  EventInfo,
  Fetch,
  Gap,
  Handler,
  PosthornOptions,
  PublishOptions,
  Receipt,
  RequestOptions,
  Room,
  SubscribeOptions,
  Subscription,
  Transport,
  WebSocketConstructor,
  WebSocketLike,
  Welcome,
} from './types.js';
