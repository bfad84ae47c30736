/** The inbox of the client SDK against the real cluster: whatever happens, every tab says what the server says. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect as connectNats } from '@nats-io/transport-node';
import { type InboxChange, Posthorn, PosthornError, type WebSocketConstructor } from '@posthorn/client';
import { STREAMS } from '@posthorn/contracts';
import { Collected, startCluster, startTcpProxy, type TcpProxy, type TestCluster } from '@posthorn/testing';
import { WebSocket } from 'ws';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

let cluster: TestCluster;
/** One address for both gateways: connections go to the one that is named. */
let balancer: TcpProxy;
let gateway = 0;

beforeAll(async () => {
  cluster = await startCluster({ replicas: { gateway: 2 }, env: { DRAIN_BUDGET: '2s' } });
  balancer = await startTcpProxy(() => cluster.app('gateway', gateway).port);
}, 90_000);
afterEach(() => {
  for (const tab of tabs.splice(0)) tab.client.close();
  balancer.restore();
  gateway = 0;
});
afterAll(async () => {
  await balancer?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});

let tenants = 0;
const tenant = () => createTenant(cluster, `client-inbox-${++tenants}`);

interface Tab {
  readonly client: Posthorn;
  readonly changes: Collected<InboxChange>;
  readonly errors: Collected<PosthornError>;
}

const tabs: Tab[] = [];

/** A tab that shows the inbox of a user. */
async function tabOf({ token }: Tenant, sub: string, claims: object = {}): Promise<Tab> {
  const client = new Posthorn({
    url: `http://127.0.0.1:${balancer.port}`,
    WebSocket: WebSocket as unknown as WebSocketConstructor,
    getToken: () => token(sub, claims),
  });
  const tab = { client, changes: new Collected<InboxChange>(), errors: new Collected<PosthornError>() };
  tabs.push(tab);
  client.on('error', tab.errors.add);
  client.inbox.on('change', tab.changes.add);
  return tab;
}

/** As {@link tabOf}, with its inbox loaded. */
async function openTab(of: Tenant, sub: string): Promise<Tab> {
  const tab = await tabOf(of, sub);
  await tab.changes.until(1);
  return tab;
}

async function notify({ service }: Tenant, ...ids: string[]): Promise<void> {
  const { status } = await service('POST', '/v1/notifications', {
    title: 'Your report is ready',
    action: 'finished',
    object: { objectType: 'report', _id: 7 },
    link: 'https://reports.example/7',
    level: 'info',
    target: ids.map((id) => ({ objectType: 'user', id })),
  });
  expect(status).toBe(201);
}

/** Resolves with what the server says once it has reached a version and every tab says the same. */
async function agreed(of: Tenant, sub: string, version: number, all: readonly Tab[]) {
  const caller = await of.as(sub);
  return eventually(async () => {
    const { body: counts } = await caller('GET', '/v1/notifications/unread');
    const items = await wholeInbox(caller);
    const server = { version: counts.version, unreadCount: counts.unread_count, items };
    const same = all.every(({ client: { inbox } }) => {
      const shown = { version: inbox.version, unreadCount: inbox.unreadCount, items: inbox.items };
      return JSON.stringify(shown) === JSON.stringify(server);
    });
    return same && counts.version >= version ? server : undefined;
  });
}

describe('the inbox of a client', () => {
  it('is the same in two tabs at two gateways, whichever marks', async () => {
    const acme = await tenant();
    await notify(acme, 'tom');
    await agreed(acme, 'tom', 1, []);
    const first = await openTab(acme, 'tom');
    gateway = 1;
    const second = await openTab(acme, 'tom');
    const both = [first, second];
    expect(first.changes.items[0]).toEqual({
      change: 'loaded',
      unreadCount: 1,
      version: 1,
      ids: [],
      notification: undefined,
    });

    for (let i = 0; i < 3; i++) await notify(acme, 'tom');
    const { items } = await agreed(acme, 'tom', 4, both);
    const [newest, next, , oldest] = items;
    expect(await first.client.inbox.markRead(newest.id)).toEqual({ updated: 1, unreadCount: 3 });
    expect(first.client.inbox.unreadCount).toBe(3);
    await second.client.inbox.acknowledge(next.id);
    expect(await agreed(acme, 'tom', 6, both)).toMatchObject({ unreadCount: 2, items: { length: 3 } });
    await first.client.inbox.acknowledge(next.id, false);
    await second.client.inbox.markRead([newest.id, oldest.id, 'none of it'], false);
    expect(await agreed(acme, 'tom', 8, both)).toMatchObject({ unreadCount: 4, items: { length: 4 } });
    expect(await second.client.inbox.markRead('all')).toEqual({ updated: 4, unreadCount: 0 });
    await agreed(acme, 'tom', 9, both);
    for (const { changes } of both) {
      const heard = changes.items.filter(({ change }) => change !== 'loaded' && change !== 'counted');
      expect(heard.map(({ change, ids }) => [change, ids.length])).toEqual([
        ...Array(3).fill(['created', 1]),
        ['read', 1],
        ['acknowledged', 1],
        ['unacknowledged', 1],
        ['unread', 1],
        ['read', 4],
      ]);
    }
  });

  it('loses an invitation that is withdrawn', async () => {
    const acme = await tenant();
    const tab = await openTab(acme, 'tom');
    const pubsub = acme.pubsub();
    const pair = { author: 'ann', target: 'tom', community: 'chess' };
    await pubsub.local.topic('community:membership:invite').publish(pair);
    const [invited] = (await agreed(acme, 'tom', 1, [tab])).items;
    await pubsub.local.topic('community:membership:invitation:cancel').publish(pair);
    await pubsub.close();
    expect(await agreed(acme, 'tom', 2, [tab])).toMatchObject({ unreadCount: 0, items: [] });
    expect(tab.changes.items.at(-1)).toMatchObject({ change: 'withdrawn', notification: { id: invited.id } });
  });

  it('is listed page by page, and filtered', async () => {
    const acme = await tenant();
    for (let i = 0; i < 5; i++) await notify(acme, 'tom');
    const { items } = await agreed(acme, 'tom', 5, []);
    const ids = items.map(({ id }) => id);
    const { client } = await tabOf(acme, 'tom');
    const { inbox } = client;
    const page = await inbox.list({ limit: 2 });
    expect(page).toMatchObject({ unreadCount: 5, version: 5, items: [{ id: ids[0] }, { id: ids[1] }] });
    expect(inbox.nextCursor).toBe(page.nextCursor);
    await inbox.list({ limit: 2, cursor: page.nextCursor! });
    expect(inbox.items.map(({ id }) => id)).toEqual(ids.slice(0, 4));
    await inbox.markRead(ids[3]!);
    expect((await inbox.list({ read: true })).items.map(({ id }) => id)).toEqual([ids[3]]);
    expect((await inbox.list({ read: false })).items).toHaveLength(4);
    expect(inbox.items.map(({ id }) => id)).toEqual(ids.slice(0, 4));
  });

  it('goes on at another gateway when its own is killed', async () => {
    const acme = await tenant();
    gateway = 1;
    const first = await openTab(acme, 'tom');
    gateway = 0;
    const second = await openTab(acme, 'tom');
    for (let i = 0; i < 4; i++) await notify(acme, 'tom');
    await agreed(acme, 'tom', 4, [first, second]);
    await cluster.app('gateway', 1).kill();
    const [newest] = second.client.inbox.items;
    await Promise.all([
      second.client.inbox.markRead(newest!.id),
      first.client.inbox.markRead(second.client.inbox.items[1]!.id),
      notify(acme, 'tom'),
      second.client.inbox.acknowledge(second.client.inbox.items[2]!.id),
    ]);
    expect(await agreed(acme, 'tom', 8, [first, second])).toMatchObject({ unreadCount: 2 });
    await cluster.app('gateway', 1).start();
    // Resumed, not asked for again.
    expect(first.changes.items.filter(({ change }) => change === 'loaded')).toHaveLength(1);
  });

  it('is loaded anew where history was lost', async () => {
    const acme = await tenant();
    const tab = await openTab(acme, 'tom');
    await notify(acme, 'tom');
    await agreed(acme, 'tom', 1, [tab]);
    balancer.cut();
    await notify(acme, 'tom');
    const tom = await acme.as('tom');
    const items = await eventually(async () => {
      const listed = await wholeInbox(tom);
      return listed.length === 2 ? listed : undefined;
    });
    await tom('PUT', `/v1/notifications/${items[0].id}/acknowledged`, { value: true });
    // Also the update is out, before all of it is gone.
    const other = await acme.socket('tom');
    await other.subscribe('usernotification:updated');
    await tom('PUT', `/v1/notifications/${items[1].id}/read`, { value: true });
    await other.find(({ message }) => (message as { version?: number } | undefined)?.version === 4);
    await other[Symbol.asyncDispose]();
    const nc = await connectNats({ servers: cluster.natsUrl });
    await (await jetstreamManager(nc)).streams.purge(STREAMS.global.name);
    await nc.close();
    balancer.restore();
    expect(await agreed(acme, 'tom', 4, [tab])).toMatchObject({ unreadCount: 0, items: { length: 1 } });
    expect(tab.changes.items.at(-1)).toMatchObject({ change: 'loaded' });
  });

  it('tells what is wrong by a code', async () => {
    const acme = await tenant();
    const { client, changes } = await openTab(acme, 'tom');
    const { inbox } = client;
    await expect(inbox.acknowledge('none of it')).rejects.toMatchObject({
      code: 'notification_not_found',
      status: 404,
    });
    await expect(inbox.list({ limit: 0 })).rejects.toMatchObject({
      code: 'request_invalid',
      errors: [expect.objectContaining({ path: '/limit' })],
    });
    expect(inbox.unreadCount).toBe(0);
    client.close();
    await expect(inbox.list()).rejects.toMatchObject({ code: 'closed' });
    await expect(inbox.markRead('all')).rejects.toBeInstanceOf(PosthornError);
    expect(changes.items).toHaveLength(1);

    const nobody = await tabOf(acme, 'svc', { role: 'service', sub: undefined });
    await expect(nobody.client.inbox.list()).rejects.toMatchObject({ code: 'forbidden', status: 403 });
    expect(nobody.client.inbox.unreadCount).toBeUndefined();
  });

  it('goes on where a listener throws', async () => {
    const acme = await tenant();
    const { client, errors } = await openTab(acme, 'tom');
    const failing = client.inbox.on('change', () => {
      throw new Error('broken');
    });
    const heard = new Collected<InboxChange>();
    client.inbox.on('change', heard.add);
    await notify(acme, 'tom');
    expect(await heard.until(1)).toBeDefined();
    expect(errors.items).toMatchObject([{ code: 'handler_failed', cause: { message: 'broken' } }]);
    failing();
    await notify(acme, 'tom');
    await heard.until(2);
    expect(errors.items).toHaveLength(1);
  });
});
