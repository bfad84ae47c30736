/** Dead letters through the gateway, and by `npm run dead-letters`. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { PermanentFailure, type PubSub } from '@posthorn/bus';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { type Caller, createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

let cluster: TestCluster;
let acme: Tenant;
let admin: Caller;
let pubsub: PubSub;

beforeAll(async () => {
  cluster = await startCluster({ replicas: { notifier: 2, gateway: 2 } });
  acme = await createTenant(cluster, 'acme');
  admin = await acme.as('root', { role: 'admin' });
  pubsub = acme.pubsub();
});

afterAll(async () => {
  await pubsub?.close();
  await cluster?.[Symbol.asyncDispose]();
});

const problem = (code: string) => expect.objectContaining({ code });

/** An event that the notification worker gives up, with whatever payload. */
async function publishBad(audience: string, payload: string): Promise<void> {
  const nc = await connect({ servers: cluster.natsUrl });
  await jetstream(nc).publish(`ph.${audience}.local.main.-.notification.external`, payload);
  await nc.close();
}

// biome-ignore lint/suspicious/noExplicitAny: letters as REST gives them
async function letters(caller: Caller, count: number, query = ''): Promise<any[]> {
  return eventually(async () => {
    const { status, body } = await caller('GET', `/v1/dead-letters${query}`);
    expect(status).toBe(200);
    return body.items.length === count ? body.items : undefined;
  });
}

const gone = (caller: Caller) => letters(caller, 0);

describe('the dead letters of an audience', () => {
  it('wait for the managers of a community, and are gone when those are set', async () => {
    const topic = pubsub.local.topic('community:membership:request');
    await topic.publish({ author: 'tom', target: 'tom', community: 'chess' });
    const [letter] = await letters(admin, 1);
    expect(letter).toMatchObject({
      consumer: 'notifier-main',
      code: 'managers_unknown',
      tries: 1,
      redrives: 0,
      event: { topic: 'community:membership:request', scope: 'local', source: 'test' },
    });
    const set = await acme.service('PUT', '/v1/communities/chess/managers', { managers: ['max'] });
    expect(set.status).toBe(200);
    await gone(admin);
    const max = await acme.as('max');
    const inbox = await eventually(async () => {
      const items = await wholeInbox(max);
      return items.length > 0 ? items : undefined;
    });
    expect(inbox).toMatchObject([{ category: 'community:membership:request', complement: { id: 'chess' } }]);
  });

  it('are shown, redriven to their consumer alone, and deleted', async () => {
    let failing = true;
    const heard: string[] = [];
    const live: unknown[] = [];
    const topic = pubsub.local.topic('login:success');
    const durable = topic.subscribe(
      async (data, { delivery }) => {
        if (failing) throw new PermanentFailure('out_of_ink', 'The printer is out of ink');
        heard.push(`${JSON.stringify(data)} ${delivery!.redriven}`);
      },
      { durable: 'printer' },
    );
    const listener = topic.subscribe((data) => live.push(data));
    await Promise.all([durable.ready, listener.ready]);
    for (const user of ['ann', 'tom', 'eve']) await topic.publish({ user }, { id: user });
    const [ann, tom, eve] = await letters(admin, 3, '?code=out_of_ink');
    const shown = await admin('GET', `/v1/dead-letters/${ann.id}`);
    expect(shown).toMatchObject({
      status: 200,
      body: { ...ann, event: { ...ann.event, payload: { user: 'ann' }, headers: { 'ce-id': 'ann' } } },
    });
    failing = false;
    const redriven = await admin('POST', `/v1/dead-letters/${ann.id}/redrive`);
    expect(redriven).toMatchObject({ status: 202, body: { redriving: 1 } });
    const deleted = await admin('DELETE', `/v1/dead-letters/${tom.id}`);
    expect([deleted.status, deleted.body]).toEqual([204, '']);
    expect((await admin('DELETE', `/v1/dead-letters/${tom.id}`)).body).toEqual(
      problem('dead_letter_not_found'),
    );
    const all = await admin('POST', '/v1/dead-letters/redrive', { all: true, consumer: eve.consumer });
    expect(all).toMatchObject({ status: 202, body: { redriving: 1 } });
    await eventually(async () => (heard.length === 2 ? true : undefined));
    expect(heard.sort()).toEqual(['{"user":"ann"} true', '{"user":"eve"} true']);
    expect(live).toHaveLength(3);
    await gone(admin);
    await Promise.all([durable.close(), listener.close()]);
  });

  it('are redriven once each, whichever notifiers die while they do it', async () => {
    let failing = true;
    const heard: number[] = [];
    const topic = pubsub.local.topic('message:stored');
    const durable = topic.subscribe(
      async (data) => {
        if (failing) throw new PermanentFailure('not_now', 'Not now');
        heard.push((data as { n: number }).n);
      },
      { durable: 'archive' },
    );
    await durable.ready;
    const count = 1_000;
    await Promise.all(Array.from({ length: count }, (_, n) => topic.publish({ n })));
    await letters(admin, 100, '?limit=100&code=not_now');
    failing = false;
    const redriveAll = () => admin('POST', '/v1/dead-letters/redrive', { all: true });
    for (const victim of [0, 1, 0, 1]) {
      await redriveAll();
      await cluster.app('notifier', victim).kill();
      await cluster.app('notifier', victim).start();
    }
    // Those that no notifier had written yet were not there to be redriven.
    await eventually(async () => {
      await redriveAll();
      return heard.length >= count ? true : undefined;
    });
    await gone(admin);
    expect([...heard].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, n) => n));
    await durable.close();
  });

  it('are for admins of the audience alone, and no secret of another audience', async () => {
    const other = await createTenant(cluster, '*');
    const otherAdmin = await other.as('root', { role: 'admin' });
    await publishBad('=2A', '{"theirs":true}');
    const [letter] = await letters(otherAdmin, 1);
    await gone(admin);
    for (const [method, path] of [
      ['GET', `/v1/dead-letters/${letter.id}`],
      ['POST', `/v1/dead-letters/${letter.id}/redrive`],
      ['DELETE', `/v1/dead-letters/${letter.id}`],
    ] as const) {
      const refused = await admin(method, path);
      const nothing = await admin(method, path.replace(letter.id, '00000000-0000-8000-8000-000000000000'));
      expect(refused).toMatchObject({ status: 404, body: problem('dead_letter_not_found') });
      expect(refused.body).toEqual(nothing.body);
    }
    expect((await admin('POST', '/v1/dead-letters/redrive', { all: true })).body).toEqual({ redriving: 0 });
    for (const role of ['user', 'service']) {
      const caller = await other.as('root', { role });
      for (const [method, path, body] of [
        ['GET', '/v1/dead-letters'],
        ['GET', `/v1/dead-letters/${letter.id}`],
        ['POST', `/v1/dead-letters/${letter.id}/redrive`],
        ['POST', '/v1/dead-letters/redrive', { all: true }],
        ['DELETE', `/v1/dead-letters/${letter.id}`],
      ] as const) {
        expect(await caller(method, path, body)).toMatchObject({ status: 403, body: problem('forbidden') });
      }
    }
    expect(await letters(otherAdmin, 1)).toEqual([letter]);
    await otherAdmin('DELETE', `/v1/dead-letters/${letter.id}`);
  });

  it.each([
    ['GET', '/v1/dead-letters?limit=0', undefined, '/limit'],
    ['GET', '/v1/dead-letters?limit=101', undefined, '/limit'],
    ['GET', '/v1/dead-letters?cursor=x', undefined, '/cursor'],
    ['GET', '/v1/dead-letters?consumer=', undefined, '/consumer'],
    ['GET', '/v1/dead-letters?code=a&code=b', undefined, '/code'],
    ['POST', '/v1/dead-letters/redrive', {}, '/all'],
    ['POST', '/v1/dead-letters/redrive', { all: 'yes' }, '/all'],
    ['POST', '/v1/dead-letters/redrive', { all: true, code: 7 }, '/code'],
    ['POST', '/v1/dead-letters/redrive', '[]', ''],
  ])('are not asked for with %s %s %j', async (method, path, body, where) => {
    const answer = await admin(method, path, body);
    expect(answer).toMatchObject({ status: 422, body: problem('request_invalid') });
    expect(answer.body.errors).toEqual([expect.objectContaining({ path: where })]);
  });
});

describe('npm run dead-letters', () => {
  interface Ended {
    readonly code: number;
    readonly out: string;
    readonly err: string;
  }

  /** Runs the tool; the audience's admin, unless the environment says otherwise. */
  async function tool(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
    const { POSTHORN_HOME: _, DATABASE_URL: __, ...rest } = process.env;
    const own = {
      POSTHORN_URL: cluster.gatewayUrls[0]!,
      POSTHORN_TOKEN: await acme.token('root', { role: 'admin' }),
    };
    return new Promise((resolve) => {
      const options = { env: { ...rest, ...own, ...env } };
      execFile(process.execPath, ['tools/dead-letters.mjs', ...args], options, (error, out, err) => {
        resolve({ code: error ? Number(error.code) : 0, out, err });
      });
    });
  }

  it('lists, shows, redrives and deletes', async () => {
    expect(await tool([])).toEqual({ code: 0, out: 'No dead letters.\n', err: '' });
    await publishBad('acme', '{"action":"a\\u001b[31m\\u202e"}');
    await letters(admin, 1);
    await publishBad('acme', 'no json');
    const [first, second] = await letters(admin, 2);
    const wide = await tool(['list'], { COLUMNS: '140' });
    expect(wide).toMatchObject({ code: 0, err: '' });
    expect(wide.out).toMatch(/^ID +GIVEN UP \(UTC\) +TRIES +CODE +TOPIC\n/);
    expect(wide.out).toContain(`${first.id}  ${first.time.slice(0, 10)} ${first.time.slice(11, 19)}  1 `);
    expect(wide.out).toContain('The payload is not UTF-8 JSON [notifier-main]');
    const narrow = await tool(['list', '--limit', '1'], { COLUMNS: '50' });
    expect(Math.max(...narrow.out.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(50);
    expect(narrow.out).toMatch(/There are more: --limit 10\n$/);
    expect(JSON.parse((await tool(['list', '--json', '--code', 'payload_invalid'])).out)).toEqual({
      items: [first, second],
      more: false,
    });
    const shown = await tool(['show', first.id]);
    expect(shown.out).toContain('payload:\n{\n  "action": "a\\u001b[31m�"\n}\n');
    expect((await tool(['show', second.id])).out).toContain('payload, not JSON, in base64:\nbm8ganNvbg==\n');
    expect(await tool(['redrive', first.id])).toEqual({ code: 0, out: `Redriving ${first.id}.\n`, err: '' });
    await eventually(async () =>
      (await letters(admin, 2)).some(({ redrives }) => redrives === 1) ? true : undefined,
    );
    expect((await tool(['list'], { COLUMNS: '140' })).out).toContain('  1 +1   ');
    expect((await tool(['redrive', '--all', '--consumer', 'nobody'])).out).toBe('None to redrive.\n');
    expect((await tool(['redrive', '--all'])).out).toBe('Redriving 2 dead letters.\n');
    await letters(admin, 2);
    for (const { id } of [first, second]) {
      await eventually(async () => ((await tool(['delete', id])).code === 0 ? true : undefined));
    }
    expect(await tool(['list', '--json'])).toMatchObject({
      code: 0,
      out: '{\n  "items": [],\n  "more": false\n}\n',
    });
  });

  it('says what went wrong, and ends with 1', async () => {
    expect(await tool(['show', 'no-such-letter'])).toEqual({
      code: 1,
      out: '',
      err: 'There is no such dead letter (404 dead_letter_not_found)\n',
    });
    const asUser = await tool([], { POSTHORN_TOKEN: await acme.token('tom') });
    expect(asUser).toMatchObject({ code: 1, err: 'Dead letters are for role admin (403 forbidden)\n' });
    const away = await tool([], { POSTHORN_URL: 'http://127.0.0.1:9' });
    expect(away).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining('http://127.0.0.1:9 does not answer'),
    });
    const broken = await tool([], { POSTHORN_TOKEN: 'a\nsecret' });
    expect(broken).toEqual({ code: 1, out: '', err: 'POSTHORN_TOKEN is no JWT\n' });
    const bad = await tool(['--code', 'x'.repeat(101)]);
    expect(bad).toMatchObject({ code: 1, err: expect.stringContaining('/code must be a text') });
  });

  it('prints nothing that steers a terminal or looks like a line of its own, whatever it is answered', async () => {
    const odd = (name: string) => `${name}\x1b]0;t\x07\u009b31m\u202e\nFAKE`;
    const event = {
      id: odd('e'),
      topic: odd('t'),
      scope: 'local',
      source: odd('s'),
      time: '',
      position: odd('p'),
    };
    const letter = {
      id: odd('i'),
      consumer: odd('c'),
      code: odd('k'),
      reason: odd('r'),
      time: odd(''),
      event,
    };
    const refusal = { code: odd('k'), detail: odd('d'), errors: [{ path: odd('p'), message: odd('m') }] };
    const gateway = createServer(({ url }, response) => {
      if (url?.includes('refused')) response.writeHead(422).end(JSON.stringify(refusal));
      else if (url?.includes('page')) response.end('<html>');
      else response.end(JSON.stringify(url?.includes('?') ? { items: [letter], next_cursor: null } : letter));
    });
    gateway.listen(0, '127.0.0.1');
    await once(gateway, 'listening');
    const env = { POSTHORN_URL: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}` };
    for (const args of [
      ['list'],
      ['list', '--json'],
      ['show', 'x'],
      ['show', 'x', '--json'],
      ['show', 'refused'],
    ]) {
      const { out, err } = await tool(args, env);
      expect(out + err).toContain(args.includes('refused') ? 'd' : 'r');
      expect(out + err).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|^\s*FAKE/mu);
    }
    expect(JSON.parse((await tool(['show', 'x', '--json'], env)).out)).toEqual(letter);
    expect(await tool(['show', 'page'], env)).toMatchObject({
      code: 1,
      err: expect.stringContaining('no gateway'),
    });
    gateway.close();
  });

  it.each([
    [['forget']],
    [['redrive']],
    [['redrive', 'x', '--all']],
    [['delete']],
    [['show', 'x', 'y']],
    [['list', '--limit', '0']],
    [['delete', 'x', '--code', 'y']],
    [['--audience', 'acme']],
    [['--frobnicate']],
  ])('does not understand %j, and ends with 2', async (args) => {
    const { code, out, err } = await tool(args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('npm run dead-letters -- help');
  });

  it('needs no token for what npm start runs, and gives none to anybody else', async () => {
    const home = mkdtempSync(join(tmpdir(), 'posthorn-home-'));
    const url = cluster.gatewayUrls[1]!;
    writeFileSync(join(home, 'dev.env'), `POSTHORN_URL='${url}'\nJWT_SECRET='${cluster.secrets.jwt}'\n`);
    const here = { POSTHORN_HOME: home, POSTHORN_TOKEN: '', POSTHORN_URL: url };
    expect(await tool(['--audience', 'acme'], here)).toEqual({
      code: 0,
      out: 'No dead letters of the audience acme.\n',
      err: '',
    });
    const elsewhere = await tool([], { ...here, POSTHORN_URL: cluster.gatewayUrls[0]! });
    expect(elsewhere).toMatchObject({ code: 1, err: expect.stringContaining('POSTHORN_TOKEN is needed') });
    rmSync(home, { recursive: true });
  });
});
