import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { CATALOGUE } from './catalogue/index.js';
import {
  assertMayPublish,
  assertMaySubscribe,
  assertPrivileged,
  countSubscriptions,
  filtersFor,
  isPattern,
  mayReceive,
  parseTarget,
} from './permission.js';
import type { Permissions, Principal, Role } from './principal.js';
import { ProblemError } from './problem.js';
import type { Scope } from './subject.js';
import { ownTopic, parseTopic, type Topic } from './topic.js';

const room = { event_id: 'e1', session_id: 's1' };
const as = (role: Role, more: Partial<Principal> = {}): Principal => ({
  audience: 'acme',
  sub: '7',
  username: 'alice',
  role,
  ...more,
});

function allowed(action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof ProblemError && error.code === 'forbidden') return false;
    throw error;
  }
}
const mayPublish = (principal: Principal, topic: Topic, scope: Scope = 'global') =>
  allowed(() => assertMayPublish(principal, topic, scope));
const maySubscribe = (principal: Principal, name: string) =>
  allowed(() => assertMaySubscribe(principal, parseTarget(name, principal)));

describe('a user', () => {
  it.each<[name: string, subscribe: boolean, publish: boolean]>([
    ['system/events', true, true],
    ['__broadcast__', true, true],
    ['room/other', true, true],
    ['user:7', true, false],
    ['user:8', false, false],
    ['user.7.x', false, false],
    ['personal.alice', true, false],
    ['personal:alice', true, false],
    ['personal.Alice', false, false],
    ['personal.bob', false, false],
    ['taskd.certificate.alice', true, false],
    ['taskd/certificate/bob', false, false],
    ['client:f3b0c442-98fc-4c14-9afb-f4c8996fb924', true, false],
    ['__general__', true, false],
    ['message:stored', true, false],
    ['message:activity', true, false],
    ['message:comment', false, false],
    ['community:join', false, false],
    ['community/join', false, false],
    ['community.of.my.own', false, false],
    ['login:success', false, false],
    ['invitation', false, false],
    ['usernotification:other', false, false],
    ['mongodb:connexionAvailable', false, false],
    ['notification:external', false, false],
    ['room/organization/hello', false, false],
    ['room:event:e1:hello', false, false],
    ['room/session/s1/hello', false, false],
    ['room.session', false, false],
  ])('in no room: %s', (name, subscribe, publish) => {
    const user = as('user');
    expect([maySubscribe(user, name), mayPublish(user, parseTopic(name))]).toEqual([subscribe, publish]);
    expect(mayReceive(user, parseTopic(name))).toBe(subscribe);
    expect(mayPublish(user, parseTopic(name), 'local')).toBe(false);
  });

  it.each<[name: string, subscribe: boolean, publish: boolean]>([
    ['room/organization/hello', true, false],
    ['room/event/e1/hello', true, false],
    ['room/event/e2/hello', false, false],
    ['room/event/e1', true, false],
    ['room:session:s1:hello', true, true],
    ['room:session:s1:a.b/c', true, true],
    ['room/session/s2/hello', false, false],
    ['room/session/S1/hello', false, false],
    ['room/session', false, false],
    ['room/event', false, false],
  ])('in a room: %s', (name, subscribe, publish) => {
    const member = as('user', { room });
    expect([maySubscribe(member, name), mayPublish(member, parseTopic(name))]).toEqual([subscribe, publish]);
  });

  it('publishes to its event and organization with a permission that says so, and to no other event', () => {
    const member = as('user', {
      room,
      permissions: { publish: ['room/event/*/*', 'room/organization/hello'] },
    });
    expect(mayPublish(member, parseTopic('room/event/e1/a.b'))).toBe(true);
    expect(mayPublish(member, parseTopic('room/organization/hello'))).toBe(true);
    expect(mayPublish(member, parseTopic('room/organization/other'))).toBe(false);
    expect(mayPublish(member, parseTopic('room/event/e2/hello'))).toBe(false);
    expect(mayPublish(member, parseTopic('room/session/s1/hello'))).toBe(false);
  });

  it('hears its own notifications by the bare name', () => {
    const target = parseTarget('usernotification/created', as('user'));
    expect(target).toMatchObject({ path: '7.usernotification.created' });
    expect(maySubscribe(as('user'), 'usernotification:updated')).toBe(true);
    expect(mayPublish(as('user'), ownTopic('usernotification:created', '7'))).toBe(false);
    expect(mayReceive(as('user'), ownTopic('usernotification:created', '8'))).toBe(false);
  });

  it('has no per-user topics where its token names nobody', () => {
    const nobody = as('user', { sub: null, username: null });
    for (const name of ['user:null', 'user:', 'usernotification:created', 'personal.null']) {
      expect(() => assertMaySubscribe(nobody, parseTarget(name, nobody))).toThrow(ProblemError);
    }
    expect(maySubscribe(nobody, 'system/events')).toBe(true);
  });

  it.each(['*', '>', 'personal.bob*', 'a.>', '-', ' x'])(
    'may be called %j, which is then no pattern',
    (username) => {
      const user = as('user', { username });
      expect(parseTarget(`personal.${username}`, user)).toMatchObject({ key: username });
      expect(maySubscribe(user, `personal.${username}`)).toBe(true);
    },
  );

  it('needs a permission that holds a pattern', () => {
    expect(maySubscribe(as('user'), 'system.*')).toBe(false);
    const holding = (...subscribe: string[]) => as('user', { permissions: { subscribe } });
    expect(maySubscribe(holding('system.*'), 'system/*')).toBe(true);
    expect(maySubscribe(holding('system.>'), 'system.*.x')).toBe(true);
    expect(maySubscribe(holding('system.a', 'system.b'), 'system.*')).toBe(false);
    expect(maySubscribe(holding('system.*'), 'system.>')).toBe(false);
    expect(maySubscribe(holding('>'), '>')).toBe(true);
    expect(maySubscribe(holding(), '>')).toBe(false);
  });

  it('gets nothing reserved by a pattern', () => {
    const user = as('user', { permissions: { subscribe: ['>'] } });
    const target = parseTarget('>', user);
    expect(isPattern(target) && filtersFor(user, target)).toEqual(['-.>']);
    for (const name of ['community:join', 'login:success', 'room/session/s1/hello', 'personal.bob']) {
      expect(mayReceive(user, parseTopic(name))).toBe(false);
    }
    expect(mayReceive(user, parseTopic('system/events'))).toBe(true);
  });

  it('is no service', () => {
    expect(allowed(() => assertPrivileged(as('user'), 'schema'))).toBe(false);
  });
});

describe('a member of a room', () => {
  const member = as('user', { room, permissions: { subscribe: ['>'] } });
  const own = ['room/organization', 'room/event/e1', 'room:session.s1'];

  it('hears events of any name in it, those that look like patterns too', () => {
    for (const eventName of ['*', '>', 'a/*', '*.b', 'a:>', ' ', 'a/b', '\0', 'session/s2/x']) {
      for (const topic of own) {
        const name = `${topic}/${eventName}`;
        const target = parseTarget(name, member);
        expect(isPattern(target) ? target.filters : target.path).toBe(parseTopic(name).path);
        expect(allowed(() => assertMaySubscribe(member, target))).toBe(true);
      }
    }
  });

  it('means patterns by what is not its own room', () => {
    for (const name of [
      'room/>',
      'room/session/*/x',
      'room/session/s2/*',
      'room/event/e2/>',
      'room.*.s1.*',
    ]) {
      expect(isPattern(parseTarget(name, member))).toBe(true);
    }
    expect(isPattern(parseTarget('room/session/s1/*', as('user')))).toBe(true);
    expect(isPattern(parseTarget('room/session/s1/*', as('service', { room })))).toBe(true);
  });

  it('has one subscription for an event name, in all of its three topics', () => {
    const count = (principal: Principal, ...names: string[]) =>
      countSubscriptions(
        names.map((name) => parseTarget(name, principal)),
        principal,
      );
    const topicsOf = (eventName: string) => own.map((topic) => `${topic}/${eventName}`);
    expect(count(member)).toBe(0);
    expect(count(member, ...topicsOf('hello'))).toBe(1);
    expect(count(member, ...topicsOf('hello').slice(1))).toBe(1);
    expect(count(member, ...topicsOf('hello'), ...topicsOf('hello/x'), ...topicsOf('*'))).toBe(3);
    expect(count(member, 'hello', 'room/>', 'room/event/e1', ...topicsOf('hello'))).toBe(4);
    expect(count(as('user'), ...topicsOf('hello'))).toBe(3);
    expect(count(as('service'), ...topicsOf('a'), 'room/session/s2/a')).toBe(4);
    expect(count(as('service', { room }), ...topicsOf('a'), 'room/session/s2/a')).toBe(2);
  });
});

describe.each(['service', 'admin'] as const)('a token of role %s', (role) => {
  it("may do all within its audience, but for the notifier's own", () => {
    const principal = as(role);
    for (const entry of CATALOGUE.values()) {
      const topic = entry.parameter ? ownTopic(entry.name, 'anybody') : parseTopic(entry.name);
      const may = topic.segments[0] !== 'usernotification';
      expect([mayPublish(principal, topic), mayPublish(principal, topic, 'local')]).toEqual([may, may]);
      expect(mayReceive(principal, topic)).toBe(true);
    }
    for (const name of [
      '>',
      'personal.*',
      'room/session/any/x',
      'community:anything',
      'usernotification:created',
    ]) {
      expect(maySubscribe(principal, name)).toBe(true);
    }
    expect(allowed(() => assertPrivileged(principal, 'schema'))).toBe(true);
  });

  it("means every target's notifications by the bare name", () => {
    expect(parseTarget('usernotification:created', as(role))).toEqual({
      name: 'usernotification:created',
      filters: ['*.usernotification.created'],
    });
  });

  it('is narrowed by its permissions', () => {
    const principal = as(role, {
      permissions: { publish: ['community:*'], subscribe: ['personal.*', 'usernotification:created'] },
    });
    expect(mayPublish(principal, parseTopic('community:join'))).toBe(true);
    expect(mayPublish(principal, parseTopic('system/events'))).toBe(false);
    expect(maySubscribe(principal, 'personal.bob')).toBe(true);
    expect(maySubscribe(principal, 'personal.*')).toBe(true);
    expect(maySubscribe(principal, 'usernotification:created')).toBe(true);
    expect(maySubscribe(principal, 'usernotification:*')).toBe(false);
    expect(maySubscribe(principal, 'community:join')).toBe(false);
  });
});

describe('permissions', () => {
  const name = fc.constantFrom(
    '>',
    '*',
    'a',
    'a.*',
    'a.>',
    'community:*',
    'community:join',
    'personal.*',
    'personal.alice',
    'personal.bob',
    'user:7',
    'usernotification:created',
    'room.>',
    'room/event/*/*',
    'room/session/s1/*',
    '__broadcast__',
    'not a topic',
    'personal',
    '',
  );
  const list = fc.array(name, { maxLength: 4 });
  const permissions: fc.Arbitrary<Permissions> = fc.record(
    { publish: list, subscribe: list },
    { requiredKeys: [] },
  );
  const principal = fc.record({
    role: fc.constantFrom<Role>('user', 'service', 'admin'),
    room: fc.constantFrom(undefined, room),
  });
  const topics = [
    ...[
      'a',
      'a.b',
      '__broadcast__',
      'community:join',
      'community:x',
      'personal.alice',
      'personal.bob',
      'user:7',
      'user:8',
      'client:some-long-random-id-0000',
    ].map((n) => parseTopic(n)),
    ...[
      'room/organization/x',
      'room/event/e1/x',
      'room/event/e2/x',
      'room/session/s1/x',
      'room/session/s2/x',
    ].map((n) => parseTopic(n)),
    ...['7', '8'].map((id) => ownTopic('usernotification:created', id)),
  ];

  it('only narrow: what they allow is allowed without them, but for what a permission has to say', () => {
    fc.assert(
      fc.property(principal, permissions, ({ role, room }, held) => {
        const free = as(role, room ? { room } : {});
        const bound = { ...free, permissions: held };
        for (const topic of topics) {
          if (mayReceive(bound, topic)) expect(mayReceive(free, topic)).toBe(true);
          if (!mayPublish(bound, topic) || mayPublish(free, topic)) continue;
          expect([role, topic.segments[0], held.publish !== undefined]).toEqual(['user', 'room', true]);
          expect(topic.path).toMatch(/^-\.room\.(?:organization\.|event\.e1\.)/);
        }
      }),
    );
  });

  it('allow less the fewer they are, and nothing when there are none', () => {
    fc.assert(
      fc.property(principal, list, list, ({ role, room }, some, more) => {
        const holding = (names: string[]) =>
          as(role, { ...(room ? { room } : {}), permissions: { publish: names, subscribe: names } });
        for (const topic of topics) {
          expect([mayReceive(holding([]), topic), mayPublish(holding([]), topic)]).toEqual([false, false]);
          if (mayReceive(holding(some), topic))
            expect(mayReceive(holding([...some, ...more]), topic)).toBe(true);
          if (mayPublish(holding(some), topic))
            expect(mayPublish(holding([...some, ...more]), topic)).toBe(true);
        }
      }),
    );
  });

  it('never let a user do what is reserved for others', () => {
    const reserved = [
      'community:join',
      'community:x',
      'personal.bob',
      'user:8',
      'room/session/s2/x',
      'room/event/e2/x',
    ];
    fc.assert(
      fc.property(permissions, (held) => {
        const user = as('user', { room, permissions: held });
        for (const topic of [
          ...reserved.map((n) => parseTopic(n)),
          ownTopic('usernotification:created', '8'),
        ]) {
          expect([mayReceive(user, topic), mayPublish(user, topic)]).toEqual([false, false]);
        }
      }),
    );
  });
});
