/**
 * The one catalogue of errors, the same on every face (docs/protocols/events.md, "Errors").
 *
 * Inside a process errors keep their `cause`; an edge turns them into RFC 9457 problem documents or into
 * `error` frames exactly once.
 */

/** What each code means to a caller. `retry`: whether the same call may succeed later, unchanged. */
export const PROBLEMS = {
  unauthorized: { status: 401, title: 'Authentication is required', retry: false },
  token_expired: { status: 401, title: 'The token has expired', retry: false },
  forbidden: { status: 403, title: 'The principal may not do this', retry: false },
  audience_not_found: { status: 404, title: 'The audience does not exist', retry: false },
  topic_not_found: { status: 404, title: 'The topic does not exist', retry: false },
  notification_not_found: { status: 404, title: 'The notification does not exist', retry: false },
  dead_letter_not_found: { status: 404, title: 'The dead letter does not exist', retry: false },
  timeline_entry_not_found: { status: 404, title: 'The timeline has no such entry', retry: false },
  token_not_found: { status: 404, title: 'The API token does not exist', retry: false },
  route_not_found: { status: 404, title: 'There is no such call', retry: false },
  topic_conflict: { status: 409, title: 'The topic exists with other properties', retry: false },
  idempotency_conflict: {
    status: 409,
    title: 'The idempotency key was used with another payload',
    retry: false,
  },
  payload_too_large: { status: 413, title: 'The payload is too large', retry: false },
  request_invalid: { status: 422, title: 'The request is not valid', retry: false },
  payload_invalid: { status: 422, title: "The payload does not fit the topic's schema", retry: false },
  subscription_limit: { status: 429, title: 'Too many subscriptions', retry: false },
  token_limit: { status: 429, title: 'The audience has as many API tokens as it may', retry: false },
  rate_limited: { status: 429, title: 'Too many requests', retry: true },
  publish_quota: { status: 429, title: 'The audience has published as much as it may today', retry: true },
  storage_quota: { status: 429, title: 'The audience has stored as much as it may today', retry: true },
  internal: { status: 500, title: 'Something went wrong', retry: false },
  not_implemented: { status: 501, title: 'This is not switched on', retry: false },
  unavailable: { status: 503, title: 'A service that this call needs is away', retry: true },
} as const satisfies Record<string, ProblemKind>;

interface ProblemKind {
  readonly status: number;
  readonly title: string;
  readonly retry: boolean;
}

/** When to try again where `unavailable` says nothing else, in seconds: another replica may serve already. */
const AWAY = 1;

/** A code of the catalogue. */
export type ProblemCode = keyof typeof PROBLEMS;

/** One finding in a body or payload. `path` is a JSON pointer (RFC 6901), empty for the whole document. */
export interface Finding {
  readonly path: string;
  readonly message: string;
}

/** What a {@link ProblemError} may carry beside its detail. */
export interface ProblemOptions {
  readonly errors?: readonly Finding[];
  /** Seconds after which the caller may try again; becomes `Retry-After`. Of `unavailable`: 1 where not given. */
  readonly retryAfter?: number;
  readonly cause?: unknown;
}

/** An error that a caller may see. `detail` says what was wrong and where; it never holds tokens or payloads. */
export class ProblemError extends Error {
  readonly code: ProblemCode;
  readonly detail: string;
  readonly errors: readonly Finding[] | undefined;
  readonly retryAfter: number | undefined;

  constructor(code: ProblemCode, detail: string, options: ProblemOptions = {}) {
    super(detail, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ProblemError';
    this.code = code;
    this.detail = detail;
    this.errors = options.errors;
    this.retryAfter = options.retryAfter ?? (code === 'unavailable' ? AWAY : undefined);
  }

  /** The HTTP status of the code. */
  get status(): number {
    return PROBLEMS[this.code].status;
  }
}

/** RFC 9457 `application/problem+json`, with the catalogue's `code` and, for invalid input, the findings. */
export interface ProblemDocument {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ProblemCode;
  readonly errors?: readonly Finding[];
}

/** The problem document of an error. `type` is a URN, stable for each code. */
export function toProblemDocument(error: ProblemError): ProblemDocument {
  const { status, title } = PROBLEMS[error.code];
  return {
    type: `urn:posthorn:problem:${error.code}`,
    title,
    status,
    detail: error.detail,
    code: error.code,
    ...(error.errors ? { errors: error.errors } : {}),
  };
}

/** Whether a string is a code of the catalogue: for replies that come from another process. */
export function isProblemCode(code: unknown): code is ProblemCode {
  return typeof code === 'string' && Object.hasOwn(PROBLEMS, code);
}

/** Anything thrown, as an error of the catalogue: what is not one already becomes `internal`, with its cause. */
export function asProblem(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  return new ProblemError('internal', 'An unexpected error occurred', { cause: error });
}
