import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ROOM_SCOPES, type RoomScope, roomEventName, roomTopic } from './room.js';
import { parseTopic } from './topic.js';

describe('the topic of an event name', () => {
  const id = fc.constantFrom('a', 'b', 'session', 'organization', '-', '=2F');
  const room = fc.record({ event_id: id, session_id: id });
  const eventName = fc.oneof(
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }),
    fc.constantFrom('x', 'a/x', 'session/a/x', 'organization/x', '*', '>', '=2F', '\0', ' ', '.', 'e\u0301'),
  );
  const scope = fc.constantFrom<RoomScope>(...ROOM_SCOPES);
  const idOf = (one: RoomScope, { event_id, session_id }: { event_id: string; session_id: string }) =>
    one === 'organization' ? '' : one === 'event' ? event_id : session_id;

  it('is that of no other name, scope or id', () => {
    const called = fc.record({ scope, room, eventName });
    fc.assert(
      fc.property(called, called, (one, other) => {
        const told = [one, other].map((each) => [each.scope, idOf(each.scope, each.room), each.eventName]);
        const same = JSON.stringify(told[0]) === JSON.stringify(told[1]);
        const [path, another] = [one, other].map(
          (each) => roomTopic(each.scope, each.room, each.eventName).path,
        );
        expect(path === another).toBe(same);
      }),
    );
  });

  it('is known by the members of the rooms that it reaches, and by no others', () => {
    fc.assert(
      fc.property(scope, room, room, eventName, (one, target, member, name) => {
        const reached = idOf(one, target) === idOf(one, member);
        expect(roomEventName(roomTopic(one, target, name), member)).toBe(reached ? name : undefined);
      }),
    );
  });

  it('has none where a name ends before it', () => {
    const member = { event_id: 'a', session_id: 'a' };
    for (const name of ['room', 'room/organization', 'room/event/a', 'room/session/a', 'a/event/a/x']) {
      expect(roomEventName(parseTopic(name), member)).toBeUndefined();
    }
  });
});
