import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { type ProblemError, UserNotification } from '@posthorn/contracts';
import { type Environment, type Replica, startEnvironment } from '../test/environment.js';
import { nanoseconds } from './communities/communities.part.js';
import { consumerName } from './events-server.js';

const payload = { author: 'ann', target: 'tom', community: 'chess' };
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe('the notification worker', () => {
  let env: Environment;
  let replica: Replica;
  beforeAll(async () => {
    env = await startEnvironment();
    replica = env.replica();
    await replica.started;
  });
  afterEach(() => env.clear());
  afterAll(() => env[Symbol.asyncDispose]());

  const local = (audience = 'acme') => env.pubsub(audience).local;

  it('puts an invite into the inbox of its target, and tells it there', async () => {
    const { id: eventId } = await local().topic('community:membership:invite').publish(payload);
    await env.settled();

    const page = await env.list('tom');
    expect(page).toEqual({
      items: [
        {
          id: expect.stringMatching(UUID_V7),
          subject: { objectType: 'user', id: 'ann' },
          verb: { label: 'ESN_MEMBERSHIP_INVITE', text: 'has invited you in' },
          complement: { objectType: 'community', id: 'chess' },
          context: null,
          description: null,
          icon: { objectType: 'icon', id: 'fa-users' },
          category: 'community:membership:invite',
          interactive: true,
          action: [],
          target: 'tom',
          read: false,
          acknowledged: false,
          withdrawn: false,
          timestamps: { creation: expect.any(String) },
        },
      ],
      unread_count: 1,
      version: 1,
      next_cursor: null,
    });
    const [item] = page.items;
    expect(await env.told()).toEqual([
      {
        audience: 'acme',
        topic: 'usernotification:created',
        id: item?.id,
        traceparent: undefined,
        message: item,
      },
    ]);
    expect(Object.keys(item ?? {})).toEqual(
      Object.keys(UserNotification.properties).filter((name) => !['title', 'level', 'data'].includes(name)),
    );
    expect(await env.query('SELECT event_id FROM notifier.notification')).toEqual([{ event_id: eventId }]);
  });

  it('tells an accepted and a refused request to whoever made it', async () => {
    await local()
      .topic('community:join')
      .publish({ ...payload, actor: 'manager' });
    await local()
      .topic('community:membership:request:refuse')
      .publish({ ...payload, target: { _id: 42 } });
    await env.settled();
    expect(await env.created()).toMatchObject([
      { target: 'tom', category: 'community:membership:accepted' },
      { target: '42', category: 'community:membership:refused' },
    ]);
  });

  it('tells requests to the managers of the community, and joins to those who are not their author', async () => {
    await env.setManagers('chess', ['max', 'mia', 'ann', 'max']);
    await local().topic('community:join').publish(payload);
    await local().topic('community:membership:request').publish(payload);
    await env.settled();
    const told = (await env.created()).map(({ target, category }) => [category, target]);
    expect(told.sort()).toEqual([
      ['community:join', 'max'],
      ['community:join', 'mia'],
      ['community:membership:request', 'ann'],
      ['community:membership:request', 'max'],
      ['community:membership:request', 'mia'],
    ]);
  });

  it('prefers the managers that the payload names', async () => {
    await env.setManagers('chess', ['max']);
    await local()
      .topic('community:join')
      .publish({ ...payload, managers: ['zoe', 'ann'] });
    await env.settled();
    expect((await env.created()).map(({ target }) => target)).toEqual(['zoe']);
  });

  it('notifies nobody where there are no managers, and waits where they are not known', async () => {
    await env.setManagers('chess', []);
    await local().topic('community:join').publish(payload);
    await local()
      .topic('community:join')
      .publish({ ...payload, community: 'go' });
    await env.settled();
    expect(await env.created()).toEqual([]);
    expect(await env.deadLetters()).toMatchObject([
      {
        consumer: 'notifier-main',
        code: 'managers_unknown',
        reason: 'The managers of the community "go" are not known',
        tries: 1,
      },
    ]);
  });

  it('tells an external notification to each of its targets, once', async () => {
    await local()
      .topic('notification:external')
      .publish({
        author: 'bot',
        target: ['tom', { id: 'tim' }, 'tom'],
        action: 'shared',
        object: { objectType: 'file', id: 'report' },
        link: 'https://example.org/report',
        title: 'A report',
        level: 'warning',
        data: { pages: [1, { two: null }] },
      });
    await env.settled();
    expect((await env.created()).map(({ target }) => target).sort()).toEqual(['tim', 'tom']);
    expect((await env.list('tim')).items).toMatchObject([
      {
        category: 'external',
        verb: { label: 'shared', text: 'shared' },
        complement: { objectType: 'file', id: 'report' },
        action: [{ url: 'https://example.org/report', display: { label: 'ESN_LINK', text: 'link' } }],
        icon: null,
        title: 'A report',
        level: 'warning',
        data: { pages: [1, { two: null }] },
      },
    ]);
  });

  it('passes the trace context on', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    await local().topic('community:membership:invite').publish(payload, { traceparent });
    await env.publishRaw('community:membership:invite', JSON.stringify(payload), {
      headers: { traceparent: 'not one' },
    });
    await env.settled();
    expect((await env.told()).map((told) => told.traceparent)).toEqual([traceparent, undefined]);
  });

  it('ignores other topics and other instances', async () => {
    await local().topic('message:stored').publish({ id: 1 });
    await local().topic('community:membership:request:cancel').publish(payload);
    await env.link.connection.request(
      'ph.acme.local.other.-.community.membership.invite',
      JSON.stringify(payload),
    );
    await env.settled();
    expect(await env.told()).toEqual([]);
    expect(await env.deadLetters()).toEqual([]);
  });

  describe('with events that are told twice', () => {
    it('makes no second notification of one event id, however often it is published', async () => {
      for (let i = 0; i < 3; i++) {
        await env.publishRaw('notification:external', '{"target": ["tom", "tim"], "action": "a"}', {
          id: 'the same',
        });
        await env.settled();
      }
      await Promise.all(
        Array.from({ length: 5 }, () =>
          env.publishRaw('notification:external', '{"target": "tom", "action": "a"}', { id: 'another' }),
        ),
      );
      await env.settled();
      expect((await env.created()).map(({ target }) => target).sort()).toEqual(['tim', 'tom', 'tom']);
      expect(await env.list('tom')).toMatchObject({ unread_count: 2 });
    });

    it('keeps equal event ids of two audiences apart', async () => {
      for (const audience of ['acme', 'globex']) {
        await local(audience).topic('community:membership:invite').publish(payload, { id: 'e1' });
      }
      await env.settled();
      expect((await env.told()).map(({ audience }) => audience).sort()).toEqual(['acme', 'globex']);
      expect(await env.list('tom', { audience: 'globex' })).toMatchObject({ unread_count: 1, version: 1 });
    });
  });

  describe('with events that can never succeed', () => {
    const malformed: [what: string, topic: string, payload: string | Uint8Array, reason: RegExp][] = [
      ['no JSON', 'community:join', '{"author": ', /not UTF-8 JSON/],
      ['no UTF-8', 'community:join', Uint8Array.of(0x7b, 0xff, 0x7d), /not UTF-8 JSON/],
      ['an empty payload', 'community:join', '', /not UTF-8 JSON/],
      ['no object', 'community:join', '[]', /no JSON object/],
      ['no target', 'community:membership:invite', '{"author": 1, "community": 2}', /target is required/],
      [
        'an empty target',
        'community:membership:invite',
        '{"author": 1, "community": 2, "target": ""}',
        /target/,
      ],
      [
        'a target with NUL',
        'community:membership:invite',
        '{"author": 1, "community": 2, "target": "a\\u0000b"}',
        /target/,
      ],
      [
        'a target that is half a character',
        'community:membership:invite',
        '{"author": 1, "community": 2, "target": "\\ud83d"}',
        /target/,
      ],
      [
        'a target that no topic can carry',
        'community:membership:invite',
        JSON.stringify({ ...payload, target: 'x'.repeat(256) }),
        /more than 255 bytes/,
      ],
      [
        'managers that are no list',
        'community:membership:request',
        JSON.stringify({ ...payload, managers: 'max' }),
        /managers/,
      ],
      ['no targets', 'notification:external', '{"target": [], "action": "a"}', /target/],
      ['no action', 'notification:external', '{"target": "tom"}', /action is required/],
      [
        'an object that is none',
        'notification:external',
        '{"target": "tom", "action": "a", "object": {"objectType": "file"}}',
        /object/,
      ],
      ['no community', 'community:leave', '{"author": 1, "target": 2}', /community is required/],
    ];

    it.each(malformed)('gives up %s after one try, says why, and lets the others pass', async (...row) => {
      const [, topic, bytes, reason] = row;
      await local().topic('community:membership:invite').publish(payload);
      await env.publishRaw(topic, bytes, { id: 'malformed' });
      await local().topic('community:membership:invite').publish(payload);
      await env.settled();
      expect(await env.deadLetters()).toMatchObject([
        { code: 'payload_invalid', reason: expect.stringMatching(reason), tries: 1 },
      ]);
      expect(await env.created()).toHaveLength(2);
    });

    it('gives up data that nest without end', async () => {
      const data = '['.repeat(20_000) + ']'.repeat(20_000);
      await env.publishRaw('notification:external', `{"target": "tom", "action": "a", "data": ${data}}`);
      await env.settled();
      expect(await env.deadLetters()).toMatchObject([{ code: 'payload_invalid', tries: 1 }]);
    });

    it('gives up a notification that would be larger than what the bus takes', async () => {
      const data = 'x'.repeat(1024 * 1024 - 200);
      await env.publishRaw('notification:external', JSON.stringify({ target: 'tom', action: 'a', data }));
      await env.settled();
      expect(await env.deadLetters()).toMatchObject([{ code: 'payload_too_large', tries: 1 }]);
      expect(await env.list('tom')).toMatchObject({ items: [], version: 0 });
    });
  });

  describe('its inbox', () => {
    const publish = async (count: number, target = 'tom') => {
      for (let i = 0; i < count; i++) {
        await local().topic('notification:external').publish({ target, action: 'a', object: i });
      }
      await env.settled();
    };
    const objects = ({ items }: { items: readonly UserNotification[] }) =>
      items.map(({ complement }) => Number(complement.id));

    it('is empty for who never got anything', async () => {
      expect(await env.list('nobody')).toEqual({
        items: [],
        unread_count: 0,
        version: 0,
        next_cursor: null,
      });
    });

    it('is read page by page, newest first, also while it grows', async () => {
      await publish(7);
      const first = await env.list('tom', { limit: 3 });
      await publish(1);
      const second = await env.list('tom', { limit: 3, cursor: first.next_cursor! });
      const third = await env.list('tom', { limit: 3, cursor: second.next_cursor! });
      expect([first, second, third].map(objects)).toEqual([[6, 5, 4], [3, 2, 1], [0]]);
      expect(third).toMatchObject({ next_cursor: null, unread_count: 8 });
    });

    it('lists what is read, or what is not, and leaves out what is acknowledged', async () => {
      await publish(4);
      await env.query(
        `UPDATE notifier.notification SET read = true WHERE content->'complement'->>'id' = '1'`,
      );
      await env.query(
        `UPDATE notifier.notification SET acknowledged = true WHERE content->'complement'->>'id' = '2'`,
      );
      expect(objects(await env.list('tom'))).toEqual([3, 1, 0]);
      expect(objects(await env.list('tom', { read: true }))).toEqual([1]);
      expect(objects(await env.list('tom', { read: false }))).toEqual([3, 0]);
    });

    it('gives no more than one message over NATS takes', async () => {
      for (let i = 0; i < 3; i++) {
        await local()
          .topic('notification:external')
          .publish({ target: 'tom', action: 'a', object: i, data: 'x'.repeat(700_000) });
      }
      await env.settled();
      const first = await env.list('tom');
      const second = await env.list('tom', { cursor: first.next_cursor! });
      expect([first, second].map(objects)).toEqual([[2], [1]]);
      expect(second.next_cursor).not.toBeNull();
    });

    it.each([
      'x',
      Buffer.from('1').toString('base64url'),
      Buffer.from('0:01a200ce-ad27-7032-b5c5-e2dca71779f1').toString('base64url'),
      Buffer.from('9999999999999999999:01a200ce-ad27-7032-b5c5-e2dca71779f1').toString('base64url'),
      `${Buffer.from('1:01a200ce-ad27-7032-b5c5-e2dca71779f1').toString('base64url')}=`,
      "' OR true --",
    ])('refuses a cursor that is none: %s', async (cursor) => {
      const refusal = await env.list('tom', { cursor }).catch((error: ProblemError) => error);
      expect(refusal).toMatchObject({ code: 'request_invalid', errors: [{ path: '/cursor' }] });
    });

    it('refuses what is no request', async () => {
      for (const request of [{ limit: 0 }, { limit: 101 }, { read: 'yes' as never }, { audience: '' }]) {
        await expect(env.list('tom', request)).rejects.toMatchObject({ code: 'request_invalid' });
      }
      await expect(env.list('a\0b')).rejects.toMatchObject({ code: 'request_invalid' });
    });

    it('counts exactly under concurrent batches', async () => {
      const users = ['a', 'b', 'c'];
      await Promise.all(
        Array.from({ length: 300 }, (_, i) =>
          local()
            .topic('notification:external')
            .publish({ target: users.slice(0, 1 + (i % 3)), action: 'a' }),
        ),
      );
      await env.settled();
      const counts = await Promise.all(users.map(async (user) => (await env.list(user)).unread_count));
      expect(counts).toEqual([300, 200, 100]);
    });
  });

  it('takes events and calls only once all it needs is there, and says so', async () => {
    expect(replica.health.readiness()).toMatchObject({
      status: 'ready',
      checks: { nats: {}, database: {}, streams: {}, consumer: {}, calls: {} },
    });
    await local().topic('community:membership:invite').publish(payload);
    await env.publishRaw('community:join', '{}');
    await env.settled();
    const { body } = await replica.metrics.exposition();
    expect(body).toMatch(
      /^posthorn_notifier_events_total\{consumer="notifications",outcome="handled",app="notifier"\} [1-9]/m,
    );
    expect(body).toMatch(
      /^posthorn_notifier_events_total\{consumer="notifications",outcome="dead",app="notifier"\} [1-9]/m,
    );
    expect(body).toMatch(/^posthorn_notifications_written_total\{app="notifier"\} [1-9]/m);
    expect(body).toMatch(/^posthorn_notifier_batch_events_count\{app="notifier"\} [1-9]/m);
    expect(body).toMatch(/^posthorn_notifier_emit_seconds_count\{app="notifier"\} [1-9]/m);
    expect(body).toMatch(/^posthorn_consumer_pending_events\{consumer="notifications",app="notifier"\} \d/m);
    expect(body).toMatch(/^posthorn_consumer_lag_seconds\{consumer="notifications",app="notifier"\} \d/m);
  });
});

describe("a consumer's name", () => {
  it('is one that NATS takes, another for each instance', () => {
    const names = ['main', 'eu west.1', 'a>b', 'x'.repeat(100), '日本'.repeat(50)].map((instance) =>
      consumerName('notifier', instance),
    );
    expect(names.slice(0, 3)).toEqual(['notifier-main', 'notifier-eu=20west=2E1', 'notifier-a=3Eb']);
    for (const name of names) expect(name).toMatch(/^[\w=-]{1,255}$/);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe("the stream's time", () => {
  it('is read to the nanosecond', () => {
    expect(nanoseconds('2026-11-22T01:11:09.524990622Z')).toBe(1795309869524990622n);
    expect(nanoseconds('2026-11-22T01:11:09.5Z')).toBe(1795309869500000000n);
    expect(nanoseconds('2026-11-22T02:11:09+01:00')).toBe(1795309869000000000n);
    expect(nanoseconds('0001-01-01T00:00:00Z')).toBe(0n);
  });
});
