/** The inbox over REST and on the socket (docs/protocols/esn.md, "Inbox"). */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import pg from 'pg';
import { type Answer, CourierSocket, type Frame } from './support/courier-client.js';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

const TOPICS = ['usernotification:created', 'usernotification:updated'] as const;

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await startCluster({ replicas: { gateway: 2, notifier: 2 }, links: true });
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

let tenants = 0;
const tenant = () => createTenant(cluster, `inbox-${++tenants}`);

const body = {
  title: 'Your report is ready',
  action: 'finished',
  object: { objectType: 'report', _id: 7 },
  link: 'https://reports.example/7',
  level: 'info',
};
const users = (...ids: string[]) => ids.map((id) => ({ objectType: 'user', id }));

function expectProblem(answer: Answer, status: number, code: string, paths?: string[]): void {
  expect({ status: answer.status, code: answer.body.code }).toEqual({ status, code });
  if (paths) expect(answer.body.errors.map(({ path }: { path: string }) => path)).toEqual(paths);
}

/** Notifies users, and resolves when all of it is in the inbox of the last one. */
async function notify({ service, as }: Tenant, count: number, ...ids: string[]): Promise<string[]> {
  const last = await as(ids.at(-1)!);
  const { version } = (await last('GET', '/v1/notifications/unread')).body;
  for (let i = 0; i < count; i++) {
    const { status } = await service('POST', '/v1/notifications', {
      ...body,
      data: i,
      target: users(...ids),
    });
    expect(status).toBe(201);
  }
  await eventually(async () => {
    const now = (await last('GET', '/v1/notifications/unread')).body;
    return now.version >= version + count ? now : undefined;
  });
  return (await wholeInbox(last)).map(({ id }) => id);
}

/** One tab: what it knows of the inbox, from a list and the events after it. */
class Tab implements AsyncDisposable {
  private constructor(readonly socket: CourierSocket) {}

  static async open(gateway: 0 | 1, { token }: Tenant, sub: string, since?: string): Promise<Tab> {
    const socket = await CourierSocket.open(cluster.gatewayUrls[gateway]!, await token(sub));
    for (const topic of TOPICS) await socket.subscribe(topic, since);
    return new Tab(socket);
  }

  get events(): Frame[] {
    return this.socket.frames.filter(({ topic, message }) => message && TOPICS.includes(topic as never));
  }

  // biome-ignore lint/suspicious/noExplicitAny: payloads as they come
  get updates(): any[] {
    return this.events.filter(({ topic }) => topic === TOPICS[1]).map(({ message }) => message);
  }

  /** Resolves with the update of a version. */
  version(version: number): Promise<Frame> {
    return this.socket.find(
      ({ topic, message }) =>
        topic === TOPICS[1] && (message as { version?: number } | undefined)?.version === version,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.socket[Symbol.asyncDispose]();
  }
}

/** The notifications of an audience, as they are stored. */
class Database implements AsyncDisposable {
  readonly #pool = new pg.Pool({ connectionString: cluster.databaseUrl, max: 1 });

  constructor(readonly audience: string) {}

  async notified(): Promise<number> {
    const { rows } = await this.#pool.query(
      'SELECT count(*)::int AS count FROM notifier.notification WHERE audience = $1',
      [this.audience],
    );
    return rows[0].count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }
}

describe('an inbox over REST', () => {
  it('is listed, counted, read, and acknowledged', async () => {
    const acme = await tenant();
    const tom = await acme.as('tom');
    const [newest, middle, oldest] = (await notify(acme, 3, 'tom')) as [string, string, string];
    const unread = async () => (await tom('GET', '/v1/notifications/unread')).body;
    expect(await unread()).toEqual({ unread_count: 3, version: 3 });

    const read = await tom('PUT', `/v1/notifications/${newest}/read`, { value: true });
    expect(read).toMatchObject({ status: 200, body: { id: newest, read: true, acknowledged: false } });
    const gone = await tom('PUT', `/v1/notifications/${middle}/acknowledged`, { value: true });
    expect(gone).toMatchObject({ status: 200, body: { id: middle, acknowledged: true } });
    expect(await unread()).toEqual({ unread_count: 1, version: 5 });
    expect((await tom('PUT', `/v1/notifications/${newest}/read`, { value: true })).body).toEqual(read.body);
    expect(await unread()).toEqual({ unread_count: 1, version: 5 });

    const ids = async (query: string) =>
      (await tom('GET', `/v1/notifications${query}`)).body.items.map(({ id }: { id: string }) => id);
    expect(await ids('')).toEqual([newest, oldest]);
    expect(await ids('?read=true')).toEqual([newest]);
    expect(await ids('?read=false')).toEqual([oldest]);

    expect(
      (await tom('PUT', '/v1/notifications/read', { ids: [newest, middle], value: false })).body,
    ).toEqual({
      updated: 1,
      unread_count: 2,
      version: 6,
    });
    expect((await tom('PUT', '/v1/notifications/read', { all: true, value: true })).body).toEqual({
      updated: 2,
      unread_count: 0,
      version: 7,
    });
  });

  it('says where a request is not as it has to be', async () => {
    const acme = await tenant();
    const tom = await acme.as('tom');
    const put = async (path: string, sent: unknown) => tom('PUT', `/v1/notifications/${path}`, sent);
    expectProblem(await put('x/read', {}), 422, 'request_invalid', ['/value']);
    expectProblem(await put('x/acknowledged', { value: 1 }), 422, 'request_invalid', ['/value']);
    expectProblem(await put('read', { value: true }), 422, 'request_invalid', ['']);
    expectProblem(await put('read', { ids: [], all: true, value: true }), 422, 'request_invalid', ['']);
    expectProblem(await put('read', { all: false }), 422, 'request_invalid', ['/value', '/all']);
    expectProblem(await put('read', { ids: ['a', 7], value: true }), 422, 'request_invalid', ['/ids/1']);
    const many = Array.from({ length: 1_001 }, String);
    expectProblem(await put('read', { ids: many, value: true }), 422, 'request_invalid', ['/ids']);
    expectProblem(await put('x/seen', { value: true }), 404, 'route_not_found');
  });

  it("is its user's alone", async () => {
    const [acme, globex] = [await tenant(), await tenant()];
    const [id] = await notify(acme, 1, 'tom');
    const answers: Answer[] = [];
    for (const [caller, path] of [
      [await acme.as('tim'), id],
      [await globex.as('tom'), id],
      [await acme.as('boss', { role: 'admin' }), id],
      [await acme.as('tom'), '0190a5a0-0000-7000-8000-000000000000'],
      [await acme.as('tom'), 'x'],
      [await acme.as('tom'), '%00'],
      [await acme.as('tom'), 'a'.repeat(255)],
    ] as const) {
      for (const flag of ['read', 'acknowledged']) {
        answers.push(await caller('PUT', `/v1/notifications/${path}/${flag}`, { value: true }));
      }
    }
    for (const answer of answers) expectProblem(answer, 404, 'notification_not_found');
    expect(new Set(answers.map((answer) => JSON.stringify(answer.body))).size).toBe(1);
    const tim = await acme.as('tim');
    expect((await tim('PUT', '/v1/notifications/read', { ids: [id], value: true })).body).toEqual({
      updated: 0,
      unread_count: 0,
      version: 0,
    });
    expectProblem(await acme.service('GET', '/v1/notifications/unread'), 200, undefined as never);
    const nobody = await acme.as('svc', { role: 'service', sub: undefined });
    expectProblem(await nobody('GET', '/v1/notifications/unread'), 403, 'forbidden');
    expect((await (await acme.as('tom'))('GET', '/v1/notifications/unread')).body).toEqual({
      unread_count: 1,
      version: 1,
    });
  });
});

describe('an inbox on the socket', () => {
  it('agrees in two tabs at two gateways, whichever marks, and nobody else hears of it', async () => {
    const [acme, globex] = [await tenant(), await tenant()];
    await using first = await Tab.open(0, acme, 'tom');
    await using second = await Tab.open(1, acme, 'tom');
    await using other = await Tab.open(0, acme, 'tim');
    await using stranger = await Tab.open(1, globex, 'tom');
    const tom = await acme.as('tom');
    const ids = await notify(acme, 6, 'tom');
    await Promise.all([
      tom('PUT', `/v1/notifications/${ids[0]}/read`, { value: true }),
      tom('PUT', `/v1/notifications/${ids[1]}/acknowledged`, { value: true }),
      tom('PUT', '/v1/notifications/read', { ids: ids.slice(2, 4), value: true }),
    ]);
    await tom('PUT', '/v1/notifications/read', { all: true, value: true });
    const state = (await tom('GET', '/v1/notifications/unread')).body;
    expect(state).toEqual({ unread_count: 0, version: 10 });
    for (const tab of [first, second]) {
      await tab.socket.count('message', 10);
      expect((await tab.version(10)).message).toMatchObject({
        target: 'tom',
        unread_count: 0,
        change: 'read',
      });
      // As many events as the version has counted, each version of an update once.
      expect(tab.events).toHaveLength(10);
      expect(tab.updates.map(({ version }) => version).sort((a, b) => a - b)).toEqual([7, 8, 9, 10]);
      expect(tab.updates.map(({ unread_count }) => unread_count).at(-1)).toBe(0);
    }
    for (const tab of [other, stranger]) {
      await tab.socket.settle();
      expect(tab.events).toEqual([]);
    }
  });

  it('tells who comes back what was missed, by the version too', async () => {
    const acme = await tenant();
    const tom = await acme.as('tom');
    const away = await Tab.open(0, acme, 'tom');
    await notify(acme, 1, 'tom');
    const [heard] = await away.socket.count('message', 1);
    await away[Symbol.asyncDispose]();

    const ids = await notify(acme, 2, 'tom');
    await tom('PUT', `/v1/notifications/${ids[0]}/read`, { value: true });
    const { body: now } = await tom('PUT', '/v1/notifications/read', { all: true, value: true });
    expect(now).toEqual({ updated: 2, unread_count: 0, version: 5 });

    await using back = await Tab.open(1, acme, 'tom', heard!.position as string);
    await back.version(5);
    expect(back.events).toHaveLength(now.version - 1);
    expect(back.updates).toMatchObject([
      { change: 'read', notification: { id: ids[0], read: true }, unread_count: 2, version: 4 },
      { change: 'read', ids: expect.arrayContaining([ids[1]]), unread_count: 0, version: 5 },
    ]);
  });

  it('withdraws an invitation in every tab', async () => {
    const acme = await tenant();
    await using tab = await Tab.open(0, acme, 'tom');
    const pubsub = acme.pubsub();
    const pair = { author: 'ann', target: 'tom', community: 'chess' };
    await pubsub.local.topic('community:membership:invite').publish(pair);
    await pubsub.local.topic('community:membership:invitation:cancel').publish(pair);
    await pubsub.close();
    const inbox = await acme.as('tom');
    await eventually(async () => {
      const { items, version } = (await inbox('GET', '/v1/notifications')).body;
      return items.length === 0 && (version === 2 || version === 0) ? true : undefined;
    });
    const { version } = (await inbox('GET', '/v1/notifications/unread')).body;
    // Where both came in one batch there never was anything to tell.
    if (version === 2) {
      expect((await tab.version(2)).message).toMatchObject({ change: 'withdrawn', unread_count: 0 });
    }
    expect(tab.events).toHaveLength(version);
  });

  it('goes on after the notifiers were killed while inboxes changed', async () => {
    const acme = await tenant();
    await using tab = await Tab.open(0, acme, 'tom');
    const tom = await acme.as('tom');
    const ids = await notify(acme, 20, 'tom');
    const marks = ids.map((id) => tom('PUT', `/v1/notifications/${id}/read`, { value: true }));
    await marks[0];
    await Promise.all([0, 1].map((i) => cluster.app('notifier', i).kill()));
    await Promise.all(marks);
    await Promise.all([0, 1].map((i) => cluster.app('notifier', i).start()));
    const { body: now } = await tom('GET', '/v1/notifications/unread');
    expect((await tom('GET', '/v1/notifications?read=false&limit=100')).body.items).toHaveLength(
      now.unread_count,
    );
    await tab.socket.count('message', now.version);
    expect(tab.events).toHaveLength(now.version);
    expect(tab.updates.find(({ version }) => version === now.version)).toMatchObject({
      unread_count: now.unread_count,
    });
  }, 90_000);
});

describe('POST /v1/notifications', () => {
  it('notifies users, and everybody of a community, each once', async () => {
    const acme = await tenant();
    const members = ['ann', 'bob', 'cat'];
    expect((await acme.service('PUT', '/v1/communities/chess/members', { members })).status).toBe(200);
    const { status, body: answer } = await acme.service('POST', '/v1/notifications', {
      ...body,
      data: { pages: 12 },
      target: [
        { objectType: 'user', id: 'bob' },
        { objectType: 'community', id: 'chess' },
        { objectType: 'user', id: 'cat' },
        { objectType: 'user', id: { _id: 798 } },
        { objectType: 'community', id: 'nobody spoke of it' },
      ],
    });
    expect(status).toBe(201);
    expect(answer).toEqual({ recipients: 4, events: expect.any(Array) });
    expect(answer.events.map(({ target }: { target: string }) => target)).toEqual([
      'bob',
      'ann',
      'cat',
      '798',
    ]);

    const chess = { objectType: 'community', id: 'chess' };
    for (const [sub, context] of [
      ['bob', null],
      ['ann', chess],
      ['cat', chess],
      ['798', null],
    ] as const) {
      const caller = await acme.as(sub);
      const [item, ...more] = await eventually(async () => {
        const items = await wholeInbox(caller);
        return items.length > 0 ? items : undefined;
      });
      expect(more).toEqual([]);
      expect(item).toMatchObject({
        target: sub,
        subject: { objectType: 'user', id: 'svc' },
        verb: { label: 'finished', text: 'finished' },
        complement: { objectType: 'report', id: '7' },
        context,
        category: 'external',
        action: [{ url: 'https://reports.example/7' }],
        title: 'Your report is ready',
        level: 'info',
        data: { pages: 12 },
      });
    }
  });

  it('notifies nobody twice with the same Idempotency-Key, and tells the key that it made up', async () => {
    const acme = await tenant();
    const post = (sent: object, key?: string) =>
      acme.service('POST', '/v1/notifications', sent, key ? { 'idempotency-key': key } : {});
    const call = { ...body, target: users('tom', 'tim') };
    const first = await post(call, 'report-7');
    const second = await post(call, 'report-7');
    expect([first.status, second.status]).toEqual([201, 201]);
    expect(second.body).toEqual(first.body);
    expect(first.headers.get('idempotency-key')).toBeNull();
    expectProblem(await post({ ...call, title: 'Other' }, 'report-7'), 409, 'idempotency_conflict');
    // Somebody was added meanwhile.
    expect((await post({ ...body, target: users('tom', 'tim', 'tam') }, 'report-7')).body.recipients).toBe(3);

    const third = await post(call);
    const madeUp = third.headers.get('idempotency-key')!;
    expect(third.body.events).not.toEqual(first.body.events);
    expect((await post(call, madeUp)).body).toEqual(third.body);

    await eventually(async () => ((await wholeInbox(await acme.as('tom'))).length === 2 ? true : undefined));
    await eventually(async () => ((await wholeInbox(await acme.as('tam'))).length === 1 ? true : undefined));
    expect(await wholeInbox(await acme.as('tim'))).toHaveLength(2);
  });

  it('notifies a community of more members than one page of them has', async () => {
    const acme = await tenant();
    const members = Array.from({ length: 2_100 }, (_, i) => `user ${i}`);
    expect((await acme.service('PUT', '/v1/communities/large/members', { members })).status).toBe(200);
    const { status, body: answer } = await acme.service('POST', '/v1/notifications', {
      ...body,
      target: [{ objectType: 'community', id: 'large' }],
    });
    expect({ status, recipients: answer.recipients }).toEqual({ status: 201, recipients: 2_100 });
    expect(new Set(answer.events.map(({ target }: { target: string }) => target))).toEqual(new Set(members));
  }, 60_000);

  it('lets other calls through while it notifies many of something large', async () => {
    const [acme, globex] = [await tenant(), await tenant()];
    const many = users(...Array.from({ length: 70 }, (_, i) => `user ${i}`));
    let over = false;
    const large = acme
      .service('POST', '/v1/notifications', { ...body, data: 'x'.repeat(900_000), target: many })
      .finally(() => {
        over = true;
      });
    let small = 0;
    while (!over) {
      const call = { ...body, target: users('tom') };
      expect((await globex.service('POST', '/v1/notifications', call)).status).toBe(201);
      if (!over) small += 1;
    }
    expect((await large).status).toBe(201);
    // Behind all of it in one queue, the first would end with it.
    expect(small).toBeGreaterThan(2);
  }, 60_000);

  it('notifies the missing ones where it is repeated after an outage', async () => {
    const acme = await tenant();
    const members = Array.from({ length: 5_000 }, (_, i) => `user ${i}`);
    expect((await acme.service('PUT', '/v1/communities/all/members', { members })).status).toBe(200);
    const call = { ...body, target: [{ objectType: 'community', id: 'all' }] };
    const post = () => acme.service('POST', '/v1/notifications', call, { 'idempotency-key': 'once' });
    await using database = new Database(acme.audience);
    const link = cluster.natsLink(cluster.app('gateway'));
    const broken = post();
    await eventually(async () => ((await database.notified()) > 0 ? true : undefined));
    link.cut();
    expectProblem(await broken, 503, 'unavailable');
    expect((await broken).body.detail).toMatch(/Of 5000 recipients, \d+ are notified/);
    link.restore();
    const again = await eventually(async () => {
      const answer = await post();
      return answer.status === 503 ? undefined : answer;
    });
    expect({ status: again.status, recipients: again.body.recipients }).toEqual({
      status: 201,
      recipients: 5_000,
    });
    await eventually(async () => ((await database.notified()) === 5_000 ? true : undefined));
    const last = await acme.as('user 4999');
    expect(await wholeInbox(last)).toHaveLength(1);
  }, 90_000);

  it('is for services and admins', async () => {
    const acme = await tenant();
    const call = { ...body, target: users('tom') };
    expectProblem(await (await acme.as('tim'))('POST', '/v1/notifications', call), 403, 'forbidden');
    const admin = await acme.as('boss', { role: 'admin' });
    expect((await admin('POST', '/v1/notifications', call)).status).toBe(201);
  });

  it('says of each field what is wrong with it', async () => {
    const acme = await tenant();
    const post = (sent: unknown) => acme.service('POST', '/v1/notifications', sent);
    expectProblem(await post({}), 422, 'request_invalid', [
      '/title',
      '/action',
      '/link',
      '/level',
      '/object',
      '/target',
    ]);
    const call = { ...body, target: users('tom') };
    expectProblem(await post({ ...call, title: '' }), 422, 'request_invalid', ['/title']);
    expectProblem(await post({ ...call, level: 3 }), 422, 'request_invalid', ['/level']);
    expectProblem(await post({ ...call, object: {} }), 422, 'request_invalid', ['/object']);
    expectProblem(await post({ ...call, target: [] }), 422, 'request_invalid', ['/target']);
    const target = [{ objectType: 'team', id: 'a' }, null, { objectType: 'user', id: '💌'.repeat(64) }];
    expectProblem(await post({ ...call, target }), 422, 'request_invalid', [
      '/target/0/objectType',
      '/target/1/objectType',
      '/target/1/id',
      '/target/2/id',
    ]);
    const many = users(...Array.from({ length: 1_001 }, (_, i) => `user ${i}`));
    expectProblem(await post({ ...call, target: many }), 422, 'request_invalid', ['/target']);
    expectProblem(await post({ ...call, data: 'x'.repeat(1_000_000) }), 413, 'payload_too_large');
    const wide = { ...call, data: 'x'.repeat(500_000), target: many.slice(1) };
    const refused = await post(wide);
    expectProblem(refused, 413, 'payload_too_large');
    expect(refused.headers.get('idempotency-key')).toMatch(/^[0-9a-f-]{36}$/);
  });
});
