/**
 * Tryton's notifications (docs/protocols/tryton.md, "Server SDK"): a short text that a user's clients pop up. One check
 * for the SDK and for REST.
 */
import { type Finding, ProblemError } from './problem.js';
import { exceeds } from './subject.js';

/** What is notified, and whom. What is null counts as left out. */
export interface NotificationRequest {
  /** One line, 1 to 200 characters. */
  readonly title: string;
  /** Text of any number of lines, not markup. */
  readonly body?: string | null;
  /** From 0 (low) to 3 (urgent). Default 1. */
  readonly priority?: number;
  readonly user?: string | number | null;
  /** Goes before `user`. */
  readonly client?: string | number | null;
}

/** The payload that clients get. It has `type` and `kind`: the document uses each word once. */
export interface NotificationMessage {
  readonly type: 'notification';
  readonly kind: 'notification';
  readonly title: string;
  readonly body: string | null;
  readonly priority: number;
}

/** A request that was checked; ids as texts. */
export interface ParsedNotification {
  readonly message: NotificationMessage;
  readonly user: string | undefined;
  readonly client: string | undefined;
}

const TITLE_LIMIT = 200;
const PRIORITIES = 4;
/** The longest id, in bytes: as a template's parameter. */
const ID_BYTES = 255;

/** Whatever ends a line somewhere, and other controls, which no popup can show. */
const NOT_IN_A_LINE = /[\p{Cc}\u2028\u2029]/u;

/** @throws ProblemError `request_invalid` with a finding for each member that is not as it has to be */
export function parseNotificationMessage(
  request: {
    readonly [Member in keyof NotificationRequest]?: unknown;
  },
): ParsedNotification {
  const { title, body = null, priority = 1 } = request;
  const errors: Finding[] = [];
  const expect = (right: boolean, path: string, message: string) => {
    if (!right) errors.push({ path, message });
  };
  expect(isTitle(title), '/title', `must be one line of 1 to ${TITLE_LIMIT} characters`);
  expect(
    body === null || (typeof body === 'string' && body.isWellFormed()),
    '/body',
    'must be a text or null',
  );
  expect(isPriority(priority), '/priority', `must be a whole number from 0 to ${PRIORITIES - 1}`);
  const [user, client] = (['user', 'client'] as const).map((name) => {
    const value = request[name] ?? undefined;
    const id = value === undefined ? undefined : idOf(value);
    expect(
      (id === undefined) === (value === undefined),
      `/${name}`,
      'must be a whole number or a text of 1 to 255 bytes',
    );
    return id;
  });
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', 'The notification does not have the expected form', { errors });
  }
  const message = {
    type: 'notification',
    kind: 'notification',
    title: title as string,
    body: body as string | null,
    priority: priority as number,
  } as const;
  return { message, user, client };
}

/**
 * The channel of a notification: the client's, else the user's; where neither is named the calling client's, else
 * the current user's.
 * @param current who calls, as far as that is known
 * @throws ProblemError `request_invalid` where nobody is left to be notified
 */
export function notificationChannel(
  named: { readonly user?: string | undefined; readonly client?: string | undefined },
  current: { readonly user?: string | undefined; readonly client?: string | undefined },
): string {
  for (const { user, client } of [named, current]) {
    if (client !== undefined) return `client:${client}`;
    if (user !== undefined) return `user:${user}`;
  }
  throw new ProblemError(
    'request_invalid',
    'Nobody is to be notified: the call has neither user nor client',
    {
      errors: [{ path: '/user', message: 'must be given: the caller is no user' }],
    },
  );
}

function isTitle(value: unknown): boolean {
  if (typeof value !== 'string' || value === '' || exceeds(value, TITLE_LIMIT)) return false;
  return value.isWellFormed() && !NOT_IN_A_LINE.test(value);
}

function isPriority(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < PRIORITIES;
}

function idOf(value: unknown): string | undefined {
  const id = Number.isSafeInteger(value) ? String(value) : value;
  if (typeof id !== 'string' || id === '' || !id.isWellFormed() || id.includes('\0')) return undefined;
  return Buffer.byteLength(id) <= ID_BYTES ? id : undefined;
}
