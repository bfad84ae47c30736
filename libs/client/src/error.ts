/** The errors of the SDK: those of the server's one catalogue (docs/protocols/events.md, "Errors"), and its own. */

/** Codes of the server's catalogue. */
export type ServerErrorCode =
  | 'unauthorized'
  | 'token_expired'
  | 'forbidden'
  | 'audience_not_found'
  | 'topic_not_found'
  | 'notification_not_found'
  | 'dead_letter_not_found'
  | 'timeline_entry_not_found'
  | 'token_not_found'
  | 'token_limit'
  | 'route_not_found'
  | 'topic_conflict'
  | 'idempotency_conflict'
  | 'payload_too_large'
  | 'request_invalid'
  | 'payload_invalid'
  | 'subscription_limit'
  | 'rate_limited'
  | 'publish_quota'
  | 'storage_quota'
  | 'internal'
  | 'not_implemented'
  | 'unavailable';

/**
 * Codes of the SDK.
 * - `closed`: the client was closed before this came to an end
 * - `unsent`: a publish never left the client within its time; nothing is stored
 * - `unconfirmed`: a publish left the client and no answer came in time; it may be stored
 * - `queue_full`: more publishes wait than `queueLimit`
 * - `token_failed`: `getToken` threw, gave no text, or did not come back in time
 * - `network`: the server could not be reached
 * - `timeout`: the server did not answer in time
 * - `protocol`: the answer was none of Posthorn's
 * - `handler_failed`: a handler threw; the `cause` is what it threw
 * - `no_room`: a call of rooms, and the token names none
 */
export type ClientErrorCode =
  | 'closed'
  | 'unsent'
  | 'unconfirmed'
  | 'queue_full'
  | 'token_failed'
  | 'network'
  | 'timeout'
  | 'protocol'
  | 'handler_failed'
  | 'no_room';

export type PosthornErrorCode = ServerErrorCode | ClientErrorCode;

/** One finding in a message or a body. `path` is a JSON pointer (RFC 6901), empty for the whole of it. */
export interface Finding {
  readonly path: string;
  readonly message: string;
}

/** What a {@link PosthornError} may carry beside its message. */
export interface PosthornErrorDetails {
  /** The HTTP status, where the error came as an HTTP answer. */
  readonly status?: number | undefined;
  readonly errors?: readonly Finding[] | undefined;
  /** Milliseconds after which the server will listen again. */
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

/** Every error that the SDK throws, rejects with or reports. Switch on `code`: it is stable, the message is for people. */
export class PosthornError extends Error {
  readonly code: PosthornErrorCode;
  readonly status: number | undefined;
  readonly errors: readonly Finding[] | undefined;
  readonly retryAfter: number | undefined;
  override readonly cause: unknown;

  constructor(code: PosthornErrorCode, message: string, details: PosthornErrorDetails = {}) {
    super(message);
    this.name = 'PosthornError';
    this.code = code;
    this.status = details.status;
    this.errors = details.errors;
    this.retryAfter = details.retryAfter;
    this.cause = details.cause;
  }
}

const PASSING: readonly unknown[] = ['unavailable', 'rate_limited', 'network', 'timeout'];

/** Whether what failed with it may succeed a little later. */
export function isPassing(error: unknown): boolean {
  return PASSING.includes((error as PosthornError).code);
}

export function closed(): PosthornError {
  return new PosthornError('closed', 'The client is closed');
}

/** A promise that nobody has to await: its failure ends no process. Whoever awaits it is told as ever. */
export function unheard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
