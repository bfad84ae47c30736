/** What everybody agrees on: topics, subjects, positions, principals, permissions, errors, calls between apps. */
export {
  asyncApiDocument,
  type DescribedTopic,
  type DocumentContent,
  describeCatalogue,
  describeRegistered,
  describeRooms,
} from './asyncapi/document.js';
export { checkAgreement } from './catalogue/agreement.js';
export type { Access, CatalogueEntry, Parameter } from './catalogue/entry.js';
export { InboxUpdate, UserNotification } from './catalogue/esn.js';
export { EXAMPLES } from './catalogue/examples.js';
export { findId, Id, idOf } from './catalogue/ids.js';
export { CATALOGUE, type PayloadOf, type TopicName, type UserTopicName } from './catalogue/index.js';
export { type Rule, rulesOf, subjectsOf, templateName } from './catalogue/words.js';
export { CLOSE, type Close } from './close-code.js';
export {
  EVENT_ID_LIMIT,
  HEADER,
  type IdempotencyScope,
  messageId,
  PAYLOAD_LIMIT,
} from './envelope.js';
export { type NatsConfig, type NatsConfigOptions, type NatsLogin, natsConfig } from './nats-config.js';
export {
  appInbox,
  NATS_APPS,
  type NatsApp,
  type NatsService,
  serviceInbox,
} from './nats-permissions.js';
export {
  type NotificationMessage,
  type NotificationRequest,
  notificationChannel,
  parseNotificationMessage,
} from './notification-message.js';
export {
  assertMayNotify,
  assertMayPublish,
  assertMaySubscribe,
  assertPrivileged,
  countSubscriptions,
  filtersFor,
  isPattern,
  mayPublish,
  mayReceive,
  parseTarget,
  type Target,
} from './permission.js';
export {
  CURSOR_LIMIT,
  type Cursor,
  formatCursor,
  formatPosition,
  furthestOf,
  isBeyond,
  makeEpoch,
  type Position,
  parseCursor,
  parsePosition,
  reachedBy,
  type StreamRecord,
} from './position.js';
export {
  isPrivileged,
  type Permissions,
  type Principal,
  principalId,
  principalOfClaims,
  type Role,
  type Room,
} from './principal.js';
export {
  asProblem,
  type Finding,
  isProblemCode,
  PROBLEMS,
  type ProblemCode,
  type ProblemDocument,
  ProblemError,
  type ProblemOptions,
  toProblemDocument,
} from './problem.js';
export { ROOM_SCOPES, type RoomScope, roomEventName, roomTopic } from './room.js';
export {
  AUTH_CALLS,
  type KeyPurpose,
  type Revocation,
  type RevokeReply,
  RevokeRequest,
  type SignReply,
  SignRequest,
} from './rpc/auth.js';
export {
  COMMUNITY_CALLS,
  type ListMembersReply,
  ListMembersRequest,
  MEMBERS_PAGE,
  type SetCommunityReply,
  SetCommunityRequest,
} from './rpc/communities.js';
export {
  DEAD_LETTER_CALLS,
  type DeadLetterItem,
  type DeadLetterPage,
  DeadLetterRequest,
  type DeadLetterView,
  ListDeadLettersRequest,
  type RedriveReply,
  RedriveRequest,
} from './rpc/dead-letters.js';
export {
  INBOX_CALLS,
  type InboxCount,
  InboxRequest,
  ListNotificationsRequest,
  MARKS,
  MarkAllNotificationsRequest,
  type MarkAllReply,
  MarkNotificationRequest,
  MarkNotificationsRequest,
  type MarkReply,
  type NotificationPage,
  PAGE,
} from './rpc/inbox.js';
export {
  type AudienceRecord,
  type CreateAudienceReply,
  CreateAudienceRequest,
  type CreateTopicReply,
  CreateTopicRequest,
  ListTopicsRequest,
  type LookupReply,
  LookupRequest,
  type Quota,
  REGISTRY_CALLS,
  RETENTION,
  type ReportUsageReply,
  ReportUsageRequest,
  type TopicRecord,
  USAGE_PAGE,
  Usage,
} from './rpc/registry.js';
export {
  CountUnreadTimelineRequest,
  ListTimelineRequest,
  SeeTimelineRequest,
  TIMELINE_CALLS,
  type TimelineItem,
  type TimelinePage,
  type TimelineSeen,
  UNREAD_LIMIT,
} from './rpc/timeline.js';
export {
  API_SCOPES,
  API_TOKEN_LIMIT,
  type ApiScope,
  type ApiTokenItem,
  type ApiTokenPage,
  type CheckTokenReply,
  CheckTokenRequest,
  IssueTokenRequest,
  ListTokensRequest,
  type RevokeTokenReply,
  RevokeTokenRequest,
  TOKEN_CALLS,
} from './rpc/tokens.js';
export {
  checkForCatalogue,
  checkTenantSchema,
  compilePayload,
  compileTenantSchema,
  DEPTH_LIMIT,
  exceedsDepth,
  FORMATS,
  type PayloadCheck,
  SCHEMA_LIMITS,
  WORK_LIMIT,
} from './schema.js';
export {
  audienceKey,
  BUCKETS,
  checkName,
  coversFilter,
  deadLetterSubject,
  decodeKey,
  decodePath,
  decodeToken,
  encodeKey,
  encodePath,
  encodeToken,
  ephemeralSubject,
  exceeds,
  liveSubject,
  matchesFilter,
  NO_KEY,
  parseEphemeralSubject,
  parseStoredSubject,
  redriveFilter,
  redriveSubject,
  revocationKey,
  type Scope,
  STREAMS,
  type StoredSubject,
  storedSubject,
  topicKey,
} from './subject.js';
export {
  BROADCAST,
  EVENT_NAME_LIMIT,
  hasWildcard,
  hiddenEntry,
  ownTopic,
  type Pattern,
  parseFilters,
  parsePattern,
  parseTopic,
  publicName,
  type Topic,
  topicAt,
} from './topic.js';
export {
  isSampled,
  isTraceparent,
  type Span,
  type SpanAttributes,
  type SpanOptions,
  type Tracer,
  traceIdOf,
  unsampled,
} from './trace.js';
