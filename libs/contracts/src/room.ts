/**
 * Rooms (docs/protocols/livestorm.md): one event name is three topics to a member, that of its own session, that of
 * its event, and that of all events of the audience.
 */
import type { Room } from './principal.js';
import { parseTopic, type Topic } from './topic.js';

/** How far an event goes: to every room of the audience, to those of an event, to one. */
export const ROOM_SCOPES = ['organization', 'event', 'session'] as const;
export type RoomScope = (typeof ROOM_SCOPES)[number];

/**
 * The topic of an event name, for the rooms that a scope reaches.
 * @param room holds the id that the scope goes by: none for `organization`
 * @param eventName 1 to 255 characters of anything
 * @throws ProblemError `request_invalid`
 */
export function roomTopic(scope: RoomScope, room: Partial<Room>, eventName: string): Topic {
  switch (scope) {
    case 'organization':
      return parseTopic(`room/organization/${eventName}`);
    case 'event':
      return parseTopic(`room/event/${room.event_id}/${eventName}`);
    case 'session':
      return parseTopic(`room/session/${room.session_id}/${eventName}`);
  }
}

/** The event name, where a topic is one of the three that a room's members know it by. */
export function roomEventName({ segments }: Topic, room: Room): string | undefined {
  const [first, kind, id, eventName] = segments;
  if (first !== 'room') return undefined;
  if (kind === 'organization') return id;
  if (kind === 'event' && id === room.event_id) return eventName;
  if (kind === 'session' && id === room.session_id) return eventName;
  return undefined;
}
