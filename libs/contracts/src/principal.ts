/** Who is calling (docs/protocols/events.md, "Who may do what"). A principal is plain data: a key carries it. */
import { type Finding, ProblemError } from './problem.js';
import { checkName, isStorable } from './subject.js';
import { isSegment } from './topic.js';

export type Role = 'user' | 'service' | 'admin';

/** The room that a member belongs to (docs/protocols/livestorm.md). Each id is one segment of its topics' names. */
export interface Room {
  readonly event_id: string;
  readonly session_id: string;
}

/** Patterns that narrow what a principal may do. A list that is absent narrows nothing. */
export interface Permissions {
  readonly publish?: readonly string[];
  readonly subscribe?: readonly string[];
}

export interface Principal {
  readonly audience: string;
  /** The user's id; null for a token with neither `sub` nor `email`, which has no per-user topics. */
  readonly sub: string | null;
  readonly username: string | null;
  readonly role: Role;
  readonly room?: Room;
  readonly permissions?: Permissions;
  /** `jti`, where the token has one. */
  readonly tokenId?: string;
  /** `iat`, seconds since 1970. */
  readonly issuedAt?: number;
  /** `exp`, seconds since 1970; absent for a token without end, which production refuses. */
  readonly expiresAt?: number;
}

/** The longest id of a user, in bytes: it becomes a token of a subject. */
const ID_BYTES = 255;

/**
 * The principal of a token's verified claims.
 * @throws ProblemError `unauthorized`, naming the claim that is missing or wrong
 */
export function principalOfClaims(claims: Readonly<Record<string, unknown>>): Principal {
  const sub = identity(claims, 'sub') ?? identity(claims, 'email') ?? null;
  const role = claims.role === 'service' || claims.role === 'admin' ? claims.role : 'user';
  const room = roomOf(claims.room);
  const permissions = permissionsOf(claims.permissions);
  const tokenId = identity(claims, 'jti');
  const issuedAt = moment(claims, 'iat');
  const expiresAt = moment(claims, 'exp');
  return {
    audience: audienceOf(claims.aud),
    sub,
    username: identity(claims, 'username') ?? identity(claims, 'preferred_username') ?? sub,
    role,
    ...(room ? { room } : {}),
    ...(permissions ? { permissions } : {}),
    ...(tokenId === undefined ? {} : { tokenId }),
    ...(issuedAt === undefined ? {} : { issuedAt }),
    ...(expiresAt === undefined ? {} : { expiresAt }),
  };
}

/** Whether a principal acts for a service of the platform and not for one end user. */
export function isPrivileged(principal: Principal): boolean {
  return principal.role !== 'user';
}

/** One text that tells principals of an audience apart: the publisher part of an idempotency key. */
export function principalId(principal: Principal): string {
  return `${principal.role}:${principal.sub ?? ''}`;
}

function audienceOf(aud: unknown): string {
  const name = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  try {
    return checkName('audience', name);
  } catch (cause) {
    throw refuse('aud', 'must be exactly one text of 1 to 100 characters', cause);
  }
}

function identity(claims: Readonly<Record<string, unknown>>, claim: string): string | undefined {
  const value = claims[claim];
  if (value === undefined || value === null || value === '') return undefined;
  const text = typeof value === 'number' && Number.isFinite(value) ? String(value) : value;
  if (typeof text !== 'string' || !isStorable(text) || Buffer.byteLength(text) > ID_BYTES) {
    throw refuse(claim, `must be a text of at most ${ID_BYTES} bytes`);
  }
  return text;
}

/** Seconds since 1970. JSON can say 1e999, which is Infinity here and would make a timer fire at once. */
function moment(claims: Readonly<Record<string, unknown>>, claim: 'iat' | 'exp'): number | undefined {
  const value = claims[claim];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw refuse(claim, 'must be a number of seconds');
  return value;
}

function roomOf(room: unknown): Room | undefined {
  if (room === undefined || room === null) return undefined;
  const { event_id, session_id } = room as Partial<Record<keyof Room, unknown>>;
  if (typeof event_id !== 'string' || typeof session_id !== 'string') {
    throw refuse('room', 'must hold event_id and session_id');
  }
  if (!isSegment(event_id) || !isSegment(session_id)) {
    throw refuse('room', 'must hold ids of 1 to 64 characters, without `:` `/` `.` `*` `>` and white space');
  }
  return { event_id, session_id };
}

function permissionsOf(permissions: unknown): Permissions | undefined {
  if (permissions === undefined || permissions === null) return undefined;
  if (typeof permissions !== 'object' || Array.isArray(permissions)) {
    throw refuse('permissions', 'must be an object of lists');
  }
  const { publish, subscribe } = permissions as Record<string, unknown>;
  return {
    ...(publish === undefined ? {} : { publish: patternsOf('publish', publish) }),
    ...(subscribe === undefined ? {} : { subscribe: patternsOf('subscribe', subscribe) }),
  };
}

function patternsOf(action: string, list: unknown): readonly string[] {
  if (!Array.isArray(list) || list.length > 256 || list.some((item) => typeof item !== 'string')) {
    throw refuse(`permissions/${action}`, 'must be a list of at most 256 patterns');
  }
  return list as string[];
}

function refuse(claim: string, message: string, cause?: unknown): ProblemError {
  const errors: readonly Finding[] = [{ path: `/${claim}`, message }];
  return new ProblemError('unauthorized', `The token's claim ${claim} ${message}`, { errors, cause });
}
