/** What servers ask for: an event name with data, for the rooms of a scope (docs/protocols/livestorm.md). */
import {
  EVENT_NAME_LIMIT,
  exceeds,
  type Finding,
  ProblemError,
  ROOM_SCOPES,
  type Room,
  type RoomScope,
} from '@posthorn/contracts';

export interface RoomEvent {
  readonly scope: RoomScope;
  /** The ids that the scope requires. */
  readonly room: Partial<Room>;
  readonly eventName: string;
  /** What subscribers get as their message. */
  readonly data: object;
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What each scope requires. A session is reached by its own id; its event's is required, and not looked at. */
const REQUIRED = {
  organization: [],
  event: ['event_id'],
  session: ['event_id', 'session_id'],
} as const satisfies Record<RoomScope, readonly (keyof Room)[]>;

/**
 * Members that are not known, and ids that the scope does not require, are passed over.
 * @throws ProblemError `request_invalid`, naming what is missing or wrong
 */
export function parseRoomEvent(body: Record<string, unknown>): RoomEvent {
  const errors: Finding[] = [];
  const scope = objectAt(body, '', 'scope', errors);
  const payload = objectAt(body, '', 'payload', errors);
  const event = payload && objectAt(payload, '/payload', 'event', errors);
  const type = scope && typeOf(scope, errors);
  const room = scope && type ? idsOf(scope, type, errors) : {};
  const eventName = event && eventNameOf(event, errors);
  const data = event && objectAt(event, '/payload/event', 'data', errors);
  if (type === undefined || eventName === undefined || data === undefined || errors.length > 0) {
    const [{ path, message }] = errors as [Finding];
    throw new ProblemError('request_invalid', `${path.slice(1).replaceAll('/', '.')} ${message}`, { errors });
  }
  return { scope: type, room, eventName, data };
}

function objectAt(
  parent: Record<string, unknown>,
  at: string,
  name: string,
  errors: Finding[],
): Record<string, unknown> | undefined {
  const value = parent[name];
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  errors.push({ path: `${at}/${name}`, message: value === undefined ? 'is missing' : 'must be an object' });
  return undefined;
}

function typeOf({ type }: Record<string, unknown>, errors: Finding[]): RoomScope | undefined {
  const known = ROOM_SCOPES.find((one) => one === type);
  const message = type === undefined ? 'is missing' : 'must be organization, event or session';
  if (!known) errors.push({ path: '/scope/type', message });
  return known;
}

function idsOf(scope: Record<string, unknown>, type: RoomScope, errors: Finding[]): Partial<Room> {
  const ids: { -readonly [Id in keyof Room]?: string } = {};
  for (const name of REQUIRED[type]) {
    const id = scope[name];
    if (typeof id === 'string' && UUID.test(id)) ids[name] = id;
    else {
      const message = id === undefined ? `is missing: type ${type} requires it` : 'must be a uuid';
      errors.push({ path: `/scope/${name}`, message });
    }
  }
  return ids;
}

function eventNameOf({ eventName }: Record<string, unknown>, errors: Finding[]): string | undefined {
  const fault = faultOf(eventName);
  if (fault === undefined) return eventName as string;
  errors.push({ path: '/payload/event/eventName', message: fault });
  return undefined;
}

function faultOf(eventName: unknown): string | undefined {
  if (eventName === undefined) return 'is missing';
  if (typeof eventName !== 'string' || eventName === '' || exceeds(eventName, EVENT_NAME_LIMIT)) {
    return `must be a text of 1 to ${EVENT_NAME_LIMIT} characters`;
  }
  return eventName.isWellFormed() ? undefined : 'is not well-formed Unicode';
}
