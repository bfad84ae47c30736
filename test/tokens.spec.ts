/** API tokens through two gateways, and by `npm run token`. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { connect, type Msg, type NatsConnection } from '@nats-io/transport-node';
import { startCluster, type TestCluster } from '@posthorn/testing';
import pg from 'pg';
import { call } from './support/courier-client.js';
import { type Caller, createTenant, eventually, type Tenant } from './support/tenant.js';

let cluster: TestCluster;
let acme: Tenant;
let admin: Caller;
let nc: NatsConnection;
/** All that went over NATS between the apps, as text. */
let overheard = '';
/** Every token that was ever shown here. */
const shown: string[] = [];

beforeAll(async () => {
  cluster = await startCluster({ replicas: { auth: 2, gateway: 2 }, env: { LOG_LEVEL: 'debug' } });
  nc = await connect({ servers: cluster.natsUrl });
  const callback = (_: unknown, message: Msg) => {
    overheard += message.string();
  };
  nc.subscribe('>', { callback });
  acme = await createTenant(cluster, 'acme');
  admin = await acme.as('root', { role: 'admin' });
});

afterAll(async () => {
  await nc?.close();
  await cluster?.[Symbol.asyncDispose]();
});

const problem = (code: string) => expect.objectContaining({ code });

async function issue(as: Caller = admin, more: object = {}): Promise<{ id: string; token: string }> {
  const { status, body } = await as('POST', '/v1/tokens', {
    name: 'site',
    scopes: ['publish:organization'],
    ...more,
  });
  expect(status).toBe(201);
  shown.push(body.token);
  return body;
}

/** Publishes into all rooms of the token's audience, through one of the gateways. */
const use = (token: string, gateway = 0) =>
  call(cluster.gatewayUrls[gateway]!, token, 'POST', '/api/v1/pub_subs', {
    scope: { type: 'organization' },
    payload: { event: { eventName: 'hello', data: {} } },
  });

/** Resolves once a gateway refuses a token, with how long that took, in ms. */
async function refusedAt(gateway: number, token: string): Promise<number> {
  const began = performance.now();
  const { body } = await eventually(async () => {
    const answer = await use(token, gateway);
    return answer.status === 401 ? answer : undefined;
  });
  expect(body).toEqual(problem('unauthorized'));
  return performance.now() - began;
}

describe('an API token', () => {
  it('is shown once, used at every gateway, and refused at each within moments of its end', async () => {
    const { token, id, ...rest } = await issue(admin, { expires_at: '2099-12-31T23:00:00+01:00' });
    expect(token).toMatch(/^ph_[0-9a-f]{32}_[0-9a-f]{64}$/);
    expect(rest).toMatchObject({
      created_by: 'root',
      last_used_at: null,
      expires_at: '2099-12-31T22:00:00.000Z',
    });
    for (const gateway of [0, 1]) expect((await use(token, gateway)).status).toBe(202);
    const { body } = await admin('GET', '/v1/tokens');
    expect(body).toEqual({ items: [{ id, ...rest, last_used_at: expect.any(String) }], next_cursor: null });
    expect(Date.now() - Date.parse(body.items[0].last_used_at)).toBeLessThan(150_000);
    const ended = await admin('DELETE', `/v1/tokens/${id}`);
    expect([ended.status, ended.body]).toEqual([204, '']);
    for (const gateway of [1, 0]) expect(await refusedAt(gateway, token)).toBeLessThan(1_000);
    expect((await admin('GET', '/v1/tokens')).body.items).toEqual([]);
    expect(await admin('DELETE', `/v1/tokens/${id}`)).toMatchObject({
      status: 404,
      body: problem('token_not_found'),
    });
  });

  it('outlives auth, where it is remembered, and is found again when auth is back', async () => {
    const [used, fresh, revoked] = [await issue(), await issue(), await issue()];
    await admin('DELETE', `/v1/tokens/${revoked.id}`);
    expect((await use(used.token)).status).toBe(202);
    await Promise.all(cluster.apps.auth.map((auth) => auth.kill()));
    expect((await use(used.token)).status).toBe(202);
    expect(await use(fresh.token)).toMatchObject({ status: 503, body: problem('unavailable') });
    await Promise.all(cluster.apps.auth.map((auth) => auth.start()));
    expect((await use(fresh.token)).status).toBe(202);
    // The other gateway has seen none of them.
    expect((await use(used.token, 1)).status).toBe(202);
    expect((await use(revoked.token, 1)).status).toBe(401);
    for (const { id } of [used, fresh]) await admin('DELETE', `/v1/tokens/${id}`);
  });

  it('ends with all tokens of its audience, or by its id among them', async () => {
    const other = await createTenant(cluster, 'globex');
    const otherAdmin = await other.as('root', { role: 'admin' });
    const [one, two, mine] = [await issue(otherAdmin), await issue(otherAdmin), await issue()];
    for (const { token } of [one, two, mine]) expect((await use(token, 1)).status).toBe(202);
    expect((await otherAdmin('POST', '/v1/revocations', { tokenId: one.id })).status).toBe(200);
    await refusedAt(1, one.token);
    expect((await use(two.token, 1)).status).toBe(202);
    expect((await otherAdmin('POST', '/v1/revocations', {})).status).toBe(200);
    await refusedAt(1, two.token);
    expect((await use(mine.token, 1)).status).toBe(202);
    await admin('DELETE', `/v1/tokens/${mine.id}`);
  });

  it('is for admins of its audience alone, and no secret of another audience', async () => {
    const { id, token } = await issue();
    const initech = await createTenant(cluster, 'initech');
    const stranger = await initech.as('root', { role: 'admin' });
    expect((await stranger('GET', '/v1/tokens')).body.items).toEqual([]);
    const theirs = await stranger('DELETE', `/v1/tokens/${id}`);
    const none = await stranger('DELETE', '/v1/tokens/nothing');
    expect([theirs.status, theirs.body]).toEqual([404, none.body]);
    for (const role of ['user', 'service']) {
      const caller = await acme.as('tom', { role });
      for (const [method, path, body] of [
        ['POST', '/v1/tokens', { name: 'mine', scopes: ['publish:event'] }],
        ['GET', '/v1/tokens'],
        ['DELETE', `/v1/tokens/${id}`],
      ] as const) {
        expect(await caller(method, path, body)).toMatchObject({ status: 403, body: problem('forbidden') });
      }
    }
    // It opens no call of those that are for JWTs, its own among them.
    for (const path of ['/v1/tokens', '/v1/topic']) {
      expect((await call(cluster.gatewayUrls[0]!, token, 'GET', path)).status).toBe(401);
    }
    expect((await use(token)).status).toBe(202);
    await admin('DELETE', `/v1/tokens/${id}`);
  });

  it.each([
    [{}, ['/name', '/scopes']],
    [{ name: 'x', scopes: 'publish:event' }, ['/scopes']],
    [{ name: 'x', scopes: ['publish:everything'] }, ['/scopes']],
    [{ name: 'x', scopes: ['publish:event'], expires: '2099-01-01T00:00:00Z' }, ['/expires']],
    [{ name: 'x', scopes: ['publish:event'], expires_at: '2020-01-01T00:00:00Z' }, ['/expires_at']],
    [{ name: 'x', scopes: ['publish:event'], hash: '0'.repeat(64) }, ['/hash']],
    [{ name: 'x', scopes: ['publish:event'], audience: 'globex' }, ['/audience']],
    ['[]', ['']],
  ])('is not issued for %j', async (body, where) => {
    const answer = await admin('POST', '/v1/tokens', body);
    expect(answer).toMatchObject({ status: 422, body: problem('request_invalid') });
    const paths = answer.body.errors.map(({ path }: { path: string }) => path);
    expect([...new Set(paths)]).toEqual(where);
  });

  it.each(['limit=0', 'limit=x', 'cursor=x', 'cursor='])('is not listed with %s', async (query) => {
    expect(await admin('GET', `/v1/tokens?${query}`)).toMatchObject({
      status: 422,
      body: problem('request_invalid'),
    });
  });
});

describe('npm run token', () => {
  afterEach(async () => {
    const { body } = await admin('GET', '/v1/tokens?limit=100');
    for (const { id } of body.items) await admin('DELETE', `/v1/tokens/${id}`);
  });

  /** Runs the tool; the audience's admin, unless the environment says otherwise. */
  async function tool(args: readonly string[], env: Record<string, string> = {}) {
    const { POSTHORN_HOME: _, DATABASE_URL: __, ...rest } = process.env;
    const own = {
      POSTHORN_URL: cluster.gatewayUrls[0]!,
      POSTHORN_TOKEN: await acme.token('root', { role: 'admin' }),
    };
    return new Promise<{ code: number; out: string; err: string }>((resolve) => {
      const options = { env: { ...rest, ...own, ...env } };
      execFile(process.execPath, ['tools/token.mjs', ...args], options, (error, out, err) => {
        resolve({ code: error ? Number(error.code) : 0, out, err });
      });
    });
  }

  it('issues, lists and revokes', async () => {
    expect(await tool(['api', 'list'])).toEqual({ code: 0, out: 'No API tokens.\n', err: '' });
    const scope = ['--scope', 'publish:organization', '--scope', 'publish:session'];
    const created = await tool(['api', 'create', '--name', 'web site', ...scope, '--expires', '90d']);
    const token = created.out.trim();
    shown.push(token);
    expect(created).toMatchObject({ code: 0, err: expect.stringContaining('It is shown this once.') });
    expect((await use(token)).status).toBe(202);
    const wide = (await tool(['api', 'list'], { COLUMNS: '140' })).out;
    expect(wide).toMatch(/^ID +ISSUED \(UTC\) +LAST USED \(UTC\) +EXPIRES \(UTC\) +NAME\n/);
    expect(wide).toMatch(/ {2}web site\n {2}publish:organization, publish:session, issued by root\n$/);
    const narrow = (await tool(['api', 'list'], { COLUMNS: '48' })).out;
    expect(Math.max(...narrow.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(48);
    const { items, more } = JSON.parse((await tool(['api', 'list', '--json'])).out);
    expect([items.length, items[0].name, more]).toEqual([1, 'web site', false]);
    expect(created.err).toContain(`npm run token -- api revoke ${items[0].id}\n`);
    const second = JSON.parse(
      (await tool(['api', 'create', '--json', '--name', 'x', '--scope', 'publish:event'])).out,
    );
    shown.push(second.token);
    expect((await tool(['api', 'list', '--limit', '1'])).out).toMatch(/There are more: --limit 10\n$/);
    // A scanner finds the token, not its id.
    expect((await tool(['api', 'revoke', token])).out).toBe(`Revoked ${items[0].id}.\n`);
    expect(JSON.parse((await tool(['api', 'revoke', second.id, '--json'])).out)).toEqual({
      revoked: second.id,
      effective: true,
    });
    expect(await tool(['api', 'revoke', token])).toEqual({
      code: 1,
      out: '',
      err: 'There is no such API token (404 token_not_found)\n',
    });
    await refusedAt(1, token);
  });

  it('says what went wrong, and ends with 1', async () => {
    const asUser = await tool(['api', 'list'], { POSTHORN_TOKEN: await acme.token('tom') });
    expect(asUser).toEqual({ code: 1, out: '', err: 'API tokens are for role admin (403 forbidden)\n' });
    const bad = await tool(['api', 'create', '--name', 'x', '--scope', 'publish']);
    expect(bad).toMatchObject({ code: 1, out: '', err: expect.stringContaining('/scopes') });
  });

  it('needs no token for what npm start runs, and signs JWTs that it accepts', async () => {
    const home = mkdtempSync(join(tmpdir(), 'posthorn-home-'));
    const url = cluster.gatewayUrls[1]!;
    writeFileSync(join(home, 'dev.env'), `POSTHORN_URL='${url}'\nJWT_SECRET='${cluster.secrets.jwt}'\n`);
    const here = { POSTHORN_HOME: home, POSTHORN_TOKEN: '', POSTHORN_URL: url };
    expect((await tool(['api', 'list', '--audience', 'acme'], here)).out).toBe(
      'No API tokens of the audience acme.\n',
    );
    const jwt = (await tool(['jwt', '--sub', 'alice', '--audience', 'acme'], here)).out.trim();
    expect((await call(url, jwt, 'GET', '/v1/topic')).status).toBe(200);
    rmSync(home, { recursive: true });
  });
});

it('leaves no secret in a log, in the database, or between the apps', async () => {
  const client = new pg.Client(cluster.databaseUrl);
  await client.connect();
  const { rows } = await client
    .query('SELECT t::text AS text FROM auth.api_token t')
    .finally(() => client.end());
  const logs = Object.values(cluster.apps)
    .flat()
    .map((app) => readFileSync(app.logFile, 'utf8'));
  const places = [...logs, rows.map(({ text }) => text).join('\n'), overheard];
  for (const place of places) expect(place.length).toBeGreaterThan(100);
  expect(shown.length).toBeGreaterThan(8);
  for (const token of shown) {
    for (const place of places) expect(place.includes(token.slice(-64))).toBe(false);
  }
});
