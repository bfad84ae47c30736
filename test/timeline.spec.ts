import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let acme: Tenant;
beforeAll(async () => {
  cluster = await startCluster();
  acme = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const timelineOf = (target: string, more = '') => `/v1/timeline?target=${encodeURIComponent(target)}${more}`;

/** Publishes the document's example to targets, as the platform's message service does. */
async function post(tenant: Tenant, targets: unknown[], more: object = {}): Promise<void> {
  const pubsub = tenant.pubsub();
  await pubsub.local.topic('message:activity').publish({
    verb: 'post',
    language: 'en',
    published: 1_800_000_000_000,
    actor: { objectType: 'user', _id: 123, displayName: 'Awesome User' },
    object: { objectType: 'whatsup', _id: 456 },
    target: targets as string[],
    ...more,
  });
  await pubsub.close();
}

/** A target's timeline, once it has so many items. */
const waitFor = (tenant: Tenant, target: string, count: number) =>
  eventually(async () => {
    const { status, body } = await tenant.service('GET', timelineOf(target));
    return status === 200 && body.items.length >= count ? body.items : undefined;
  });

describe('a timeline over REST', () => {
  it('has what happened, for its user and for services', async () => {
    await post(acme, [{ objectType: 'user', _id: 798 }]);
    await waitFor(acme, '798', 1);
    for (const caller of [acme.service, await acme.as('798'), await acme.as('boss', { role: 'admin' })]) {
      expect(await caller('GET', timelineOf('798'))).toMatchObject({
        status: 200,
        body: {
          items: [
            {
              id: expect.any(String),
              verb: 'post',
              language: 'en',
              published: '2027-01-15T08:00:00.000Z',
              actor: { objectType: 'user', _id: 123, displayName: 'Awesome User' },
              object: { objectType: 'whatsup', _id: 456 },
              target: [{ objectType: 'user', _id: 798 }],
            },
          ],
          next_cursor: null,
        },
      });
    }
  });

  it('of a community is for its members and managers', async () => {
    const tom = await acme.as('tom');
    const forbidden = await tom('GET', timelineOf('chess'));
    expect(forbidden).toMatchObject({ status: 403, body: { code: 'forbidden' } });
    await post(acme, ['chess']);
    await acme.service('PUT', '/v1/communities/go/members', { members: ['tom'] });
    await waitFor(acme, 'chess', 1);
    for (const target of ['chess', 'nothing', 'tim']) {
      expect((await tom('GET', timelineOf(target))).body).toEqual(forbidden.body);
    }
    await acme.service('PUT', '/v1/communities/chess/managers', { managers: ['tom'] });
    expect(await tom('GET', timelineOf('chess'))).toMatchObject({ status: 200, body: { items: [{}] } });
  });

  it('is paged by a cursor', async () => {
    for (let n = 0; n < 3; n++) await post(acme, ['paged'], { n });
    await waitFor(acme, 'paged', 3);
    const first = await acme.service('GET', timelineOf('paged', '&limit=2'));
    expect(first.body).toMatchObject({ items: [{ n: 2 }, { n: 1 }], next_cursor: expect.any(String) });
    const cursor = encodeURIComponent(first.body.next_cursor);
    const second = await acme.service('GET', timelineOf('paged', `&limit=2&cursor=${cursor}`));
    expect(second.body).toMatchObject({ items: [{ n: 0 }], next_cursor: null });
  });

  it('knows how far a user has seen it', async () => {
    for (let n = 0; n < 3; n++) await post(acme, ['ann'], { n });
    const [newest, middle, oldest] = await waitFor(acme, 'ann', 3);
    const ann = await acme.as('ann');
    const unread = '/v1/timeline/unread?target=ann';
    expect((await ann('GET', unread)).body).toEqual({ last_seen: null, unread_count: 3 });
    expect(await ann('PUT', '/v1/timeline/seen', { target: 'ann', id: middle.id })).toEqual(
      expect.objectContaining({
        status: 200,
        body: { target: 'ann', last_seen: middle.id, unread_count: 1 },
      }),
    );
    const back = await ann('PUT', '/v1/timeline/seen', { target: 'ann', id: oldest.id });
    expect(back.body).toMatchObject({ last_seen: middle.id, unread_count: 1 });
    await acme.service('PUT', '/v1/timeline/seen', { target: 'ann', id: newest.id });
    expect((await ann('GET', unread)).body).toEqual({ last_seen: middle.id, unread_count: 1 });
    expect(await ann('PUT', '/v1/timeline/seen', { target: 'ann', id: 'x' })).toMatchObject({
      status: 404,
      body: { code: 'timeline_entry_not_found' },
    });
    expect(await ann('PUT', '/v1/timeline/seen', { target: 'tim', id: newest.id })).toMatchObject({
      status: 403,
      body: { code: 'forbidden' },
    });
  });

  it.each([
    ['GET', '/v1/timeline', undefined, '/target'],
    ['GET', '/v1/timeline?target=', undefined, '/target'],
    ['GET', '/v1/timeline?target=a&target=b', undefined, '/target'],
    ['GET', '/v1/timeline?target=%00', undefined, '/target'],
    ['GET', `/v1/timeline?target=${'x'.repeat(256)}`, undefined, '/target'],
    ['GET', '/v1/timeline?target=a&limit=0', undefined, '/limit'],
    ['GET', '/v1/timeline?target=a&limit=101', undefined, '/limit'],
    ['GET', '/v1/timeline?target=a&cursor=', undefined, '/cursor'],
    ['GET', '/v1/timeline?target=a&cursor=x', undefined, '/cursor'],
    ['GET', '/v1/timeline/unread', undefined, '/target'],
    ['PUT', '/v1/timeline/seen', { id: 'x' }, '/target'],
    ['PUT', '/v1/timeline/seen', { target: { id: '' }, id: 'x' }, '/target'],
    ['PUT', '/v1/timeline/seen', { target: 'a' }, '/id'],
    ['PUT', '/v1/timeline/seen', { target: 'a', id: ['x'] }, '/id'],
    ['PUT', '/v1/timeline/seen', [], ''],
  ])('answers %s %s with what is wrong', async (method, path, body, where) => {
    expect(await acme.service(method, path, body)).toMatchObject({
      status: 422,
      body: { code: 'request_invalid', errors: [{ path: where }] },
    });
  });

  it('needs a user where it is about one', async () => {
    const nobody = await acme.as('', { sub: undefined, role: 'service' });
    expect((await nobody('GET', timelineOf('tom'))).status).toBe(200);
    expect(await nobody('GET', '/v1/timeline/unread?target=tom')).toMatchObject({
      status: 403,
      body: { code: 'forbidden' },
    });
    expect((await (await acme.as('', { sub: undefined }))('GET', timelineOf('tom'))).status).toBe(403);
  });

  it('of one audience is none of another, whatever their names', async () => {
    const names = ['*', '>', 'ac', 'acme.*', 'acme.corp', 'ünï côdé', 'ACME'];
    const tenants = await Promise.all(names.map((name) => createTenant(cluster, name)));
    const target = '*.>';
    for (const [n, tenant] of tenants.entries()) await post(tenant, [target], { n });
    for (const [n, tenant] of tenants.entries()) {
      expect(await waitFor(tenant, target, 1)).toMatchObject([{ n }]);
    }
    const [first, second] = tenants;
    const [{ id }] = await waitFor(first!, target, 1);
    expect((await second!.service('PUT', '/v1/timeline/seen', { target, id })).status).toBe(404);
    expect((await acme.service('GET', timelineOf(target))).body.items).toEqual([]);
  });
});
