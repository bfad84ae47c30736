/** The client SDK where users have it, and the demo page: in a real browser and in Node, against a real cluster. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  type BrowserContext,
  type Page,
  startBrowser,
  startCluster,
  startTcpProxy,
  type TcpProxy,
  type TestBrowser,
  type TestCluster,
} from '@posthorn/testing';
import { root } from '../tools/checkout.mjs';
import { call } from './support/courier-client.js';
import { networkWithoutWebSockets } from './support/no-websockets.js';
import { createTenant, seconds, type Tenant } from './support/tenant.js';

/** The pages of a team, on an origin of their own. */
const site = createServer(({ url = '/' }, response) => {
  const name = url.slice(1).replace(/\?.*/, '');
  const script = name === 'posthorn.min.js';
  const file = script ? join(root, 'dist', 'client', name) : join(root, 'test', 'support', 'pages', name);
  response.setHeader('content-type', `text/${script ? 'javascript' : 'html'}; charset=utf-8`);
  response.end(readFileSync(file));
});
let siteUrl: string;
let cluster: TestCluster;
let browser: TestBrowser;
let acme: Tenant;

beforeAll(async () => {
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
  siteUrl = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
  [cluster, browser] = await Promise.all([
    startCluster({ replicas: { gateway: 2 }, env: { DEMO: '1', ALLOWED_ORIGINS: siteUrl } }),
    startBrowser(),
  ]);
  acme = await createTenant(cluster, 'acme');
}, 90_000);
afterAll(async () => {
  await browser?.close();
  await cluster?.[Symbol.asyncDispose]();
  site.close();
  site.closeAllConnections();
});

/** Opens a page of the site, as a user, at a gateway. `claims` may be different for each token. */
async function open(
  page: Page,
  name: string,
  gateway: string,
  sub: string,
  claims: () => object = () => ({}),
): Promise<{ readonly tokens: number }> {
  const asked = { tokens: 0 };
  await page.exposeFunction('getToken', () => {
    asked.tokens += 1;
    return acme.token(sub, claims());
  });
  await page.goto(`${siteUrl}/${name}?url=${encodeURIComponent(gateway)}`);
  return asked;
}

/** What is wrong with a page, by its own words. */
function complaintsOf(page: Page): string[] {
  const complaints: string[] = [];
  page.on('console', (line) => {
    if (line.type() === 'error' || line.type() === 'warning') complaints.push(line.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  return complaints;
}

const gatewayUrl = () => cluster.gatewayUrls[1]!;

describe("the document's room", () => {
  const room = { event_id: randomUUID(), session_id: randomUUID() };
  let page: Page;
  let complaints: string[];

  beforeAll(async () => {
    page = await browser.newPage();
    complaints = complaintsOf(page);
    await open(page, 'livestorm.html', gatewayUrl(), 'alice', () => ({ room }));
  });
  afterAll(() => page?.close());

  it('hears what the page itself published, from one script tag', async () => {
    await page.waitForFunction('heard.length > 0');
    expect(await page.evaluate('heard')).toEqual([{ custom: 'payload' }]);
    expect(complaints).toEqual([]);
  });

  it('hears the call of a server with an API token', async () => {
    const admin = await acme.as('root', { role: 'admin' });
    const scopes = ['publish:session'];
    const { body } = await admin('POST', '/v1/tokens', { name: 'site', scopes });
    const { status } = await call(
      cluster.gatewayUrls[0]!,
      undefined,
      'POST',
      '/api/v1/pub_subs',
      {
        scope: { type: 'session', ...room },
        payload: { event: { eventName: 'say-hello', data: { by: 'a server' } } },
      },
      { authorization: body.token },
    );
    expect(status).toBe(202);
    await page.waitForFunction('heard.length > 1');
    expect(await page.evaluate('heard')).toEqual([{ custom: 'payload' }, { by: 'a server' }]);
  });
});

describe('two tabs of one user', () => {
  it('agree on the unread count, whichever of them reads', async () => {
    await using context = await browser.newContext();
    const tabs = await Promise.all([context.newPage(), context.newPage()]);
    await Promise.all(tabs.map((tab) => open(tab, 'client.html', gatewayUrl(), 'bob')));
    const bothSay = (count: number) =>
      Promise.all(tabs.map((tab) => tab.locator('#unread', { hasText: new RegExp(`^${count}$`) }).waitFor()));
    await bothSay(0);
    for (const title of ['first', 'second', 'third']) {
      await acme.service('POST', '/v1/notifications', {
        title,
        action: 'wrote to you',
        object: '1',
        link: '/1',
        level: 'info',
        target: [{ objectType: 'user', id: 'bob' }],
      });
    }
    await bothSay(3);
    const [one, other] = tabs as [Page, Page];
    await one.evaluate('posthorn.inbox.markRead([posthorn.inbox.items[0].id])');
    await bothSay(2);
    await other.evaluate("posthorn.inbox.markRead('all')");
    await bothSay(0);
  });
});

describe('a network without WebSockets', () => {
  it('gets the page its events as a stream, and takes what it publishes', async () => {
    await using network = await networkWithoutWebSockets(cluster.app('gateway', 1).port);
    await using context = await browser.newContext();
    const page = await context.newPage();
    await open(page, 'client.html', network.url, 'carol');
    await page.locator('#state', { hasText: 'connected stream' }).waitFor();
    await page.locator('.ready').waitFor({ state: 'attached' });
    expect(network.refused).toBeGreaterThan(0);
    await page.evaluate("posthorn.publish('news', { n: 1 })");
    await acme.service('POST', '/v1/hook', { topic: 'news', action: 'publish', message: { n: 2 } });
    await page.waitForFunction('numbers.length > 1');
    expect(await page.evaluate('numbers')).toEqual([1, 2]);
  });
});

describe('a program in Node', () => {
  /** Which Node: `NODE_BIN=$(npx -y -p node@22 which node) npm test -- test/browser.spec.ts`. */
  const { NODE_BIN = process.execPath } = process.env;
  const MESSAGES = 100;

  it('follows a topic through a network that breaks, reads its inbox, and ends', async () => {
    await using link = await startTcpProxy(cluster.app('gateway', 1).port);
    const sdk = pathToFileURL(join(root, 'dist', 'libs', 'client', 'src', 'index.js')).href;
    const url = `http://127.0.0.1:${link.port}`;
    const args = [sdk, url, await acme.token('gina'), String(MESSAGES)];
    const program = spawn(NODE_BIN, [join(root, 'test', 'support', 'sdk-journey.mjs'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(program, 'close');
    const lines = createInterface(program.stdout)[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value ?? '"it has ended"');
    expect(await next()).toMatchObject({ node: expect.stringMatching(/^v\d+/) });
    expect(await next()).toEqual({ transport: 'websocket', unreadCount: 0 });
    const pubsub = acme.pubsub();
    for (let n = 1; n <= MESSAGES; n++) {
      if (n === 10) link.cut();
      await pubsub.global.topic('news').publish({ n });
    }
    link.restore();
    await pubsub.close();
    expect(await next()).toEqual({
      numbers: Array.from({ length: MESSAGES }, (_, i) => i + 1),
      published: true,
    });
    expect(await ended).toEqual([0, null]);
  });
});

describe('the demo page', () => {
  let context: BrowserContext;
  let page: Page;
  let complaints: string[];
  const of = (person: 'ada' | 'grace', where = page) => where.locator(`.pane.${person}`);
  const say = async (person: 'ada' | 'grace', text: string) => {
    await of(person).getByRole('textbox').fill(text);
    await of(person).getByRole('button', { name: 'Send' }).click();
  };
  /** Resolves once a side counts so many votes, option by option. */
  const votesAre = async (person: 'ada' | 'grace', counts: readonly number[]) => {
    for (const [i, count] of counts.entries()) {
      const text = count === 1 ? '1 vote' : `${count} votes`;
      const shown = of(person).locator('.votes').nth(i);
      await shown.and(page.getByText(text, { exact: true })).waitFor();
    }
  };

  beforeAll(async () => {
    context = await browser.newContext();
    page = await context.newPage();
    complaints = complaintsOf(page);
    await page.goto(`${gatewayUrl()}/demo`);
    for (const person of ['ada', 'grace'] as const) await of(person).getByText('Connected').waitFor();
  });
  afterAll(() => context?.close());

  it('shows each what the other says, as text', async () => {
    await say('ada', 'Hello <b>Grace</b><img src=x onerror=alert(1)>');
    await of('grace').getByText('Hello <b>Grace</b><img src=x onerror=alert(1)>').waitFor();
    await say('grace', 'Hello Ada');
    await of('ada').getByText('Hello Ada').waitFor();
    expect(await page.locator('.line img, .line b').count()).toBe(0);
  });

  it('counts the last vote of each, the same on both sides', async () => {
    await of('ada').getByRole('button', { name: 'Lisbon' }).click();
    await of('grace').getByRole('button', { name: 'Kyoto' }).click();
    await of('ada').getByRole('button', { name: 'Kyoto' }).click();
    for (const person of ['ada', 'grace'] as const) {
      await votesAre(person, [0, 2, 0]);
    }
  });

  it('rings the bell of who is invited, in another tab too, until it is read in one of them', async () => {
    const tab = await context.newPage();
    await tab.goto(page.url());
    const badges = [page, tab].map((where) => of('grace', where).locator('.count'));
    await of('ada').getByRole('button', { name: 'Invite Grace' }).click();
    for (const badge of badges) await badge.getByText('1', { exact: true }).waitFor();
    await of('grace', tab).getByRole('button', { name: 'Notifications of Grace: 1 unread' }).click();
    const inbox = tab.getByRole('region', { name: 'Notifications of Grace' });
    await inbox.getByText('Ada has invited you in Reading club').waitFor();
    await inbox.getByRole('button', { name: 'Mark read' }).click();
    for (const badge of badges) await badge.waitFor({ state: 'hidden' });
    expect(await of('ada', tab).locator('.count').isVisible()).toBe(false);
    await tab.close();
  });

  it('gives who was cut off what was missed, and sends what was written meanwhile', async () => {
    await of('grace').getByRole('button', { name: 'Cut the network' }).click();
    await say('grace', 'In a tunnel');
    for (const text of ['One', 'Two', 'Three']) await say('ada', text);
    await of('ada').getByRole('button', { name: 'Reykjavík' }).click();
    await of('ada')
      .getByRole('button', { name: 'Reykjavík' })
      .and(page.locator('[aria-pressed=true]'))
      .waitFor();
    await votesAre('grace', [0, 2, 0]);
    expect(await of('grace').locator('.sent').count()).toBe(1);
    await of('grace').getByRole('button', { name: 'Restore it' }).click();
    await of('ada').getByText('In a tunnel').waitFor();
    await of('grace').locator('.sent').waitFor({ state: 'detached' });
    await votesAre('grace', [0, 1, 1]);
    expect((await of('grace').locator('.text').allTextContents()).slice(-4)).toEqual(
      (await of('ada').locator('.text').allTextContents()).slice(-4),
    );
  });

  it('rebuilds the room from its history when it is loaded anew', async () => {
    const texts = () => of('ada').locator('.line .text').allTextContents();
    await say('grace', 'Before it is loaded anew');
    await of('ada').getByText('Before it is loaded anew').waitFor();
    await of('ada').getByRole('button', { name: 'Lisbon' }).click();
    await of('grace').getByRole('button', { name: 'Lisbon' }).click();
    await votesAre('ada', [2, 0, 0]);
    const before = await texts();
    await page.reload();
    await of('ada')
      .locator('.line')
      .nth(before.length - 1)
      .waitFor();
    expect(await texts()).toEqual(before);
    for (const person of ['ada', 'grace'] as const) await votesAre(person, [2, 0, 0]);
  });

  it.each([
    ['is not kept any more', '0000000000-1', 'What came before is not kept any more'],
    ['is none', 'nonsense', 'Not followed: since must be a position'],
  ])('says so where the place in the address %s', async (_, since, told) => {
    const tab = await context.newPage();
    await tab.goto(`${gatewayUrl()}/demo#room=${'0'.repeat(32)}&since=${since}`);
    for (const person of ['ada', 'grace'] as const) await of(person, tab).getByText(told).waitFor();
    await tab.close();
  });

  it('breaks no rule of its own policy, and reports no error', () => {
    expect(complaints).toEqual([]);
  });

  it('gives tokens to its own page alone, for rooms that nobody guesses', async () => {
    const ask = (body: unknown, headers = {}) =>
      call(gatewayUrl(), undefined, 'POST', '/demo/token', body, headers);
    const room = '0123456789abcdef'.repeat(2);
    expect((await ask({ user: 'ada', room })).status).toBe(200);
    expect((await ask({ user: 'ada', room }, { 'sec-fetch-site': 'cross-site' })).body.code).toBe(
      'forbidden',
    );
    // Over plain http from another machine, browsers say no more than the origin.
    expect((await ask({ user: 'ada', room }, { origin: 'https://app.example' })).body.code).toBe('forbidden');
    expect((await ask({ user: 'ada', room }, { origin: gatewayUrl() })).status).toBe(200);
    expect((await ask({ user: 'root', room: 'lobby' })).body.errors).toHaveLength(2);
    const alice = await acme.as('alice');
    expect((await alice('POST', '/demo/invitations')).body.code).toBe('forbidden');
  });
});

describe('the page of the REST calls', () => {
  it('shows them, and breaks no rule of its own policy', async () => {
    const page = await browser.newPage();
    const complaints = complaintsOf(page);
    await page.goto(`${gatewayUrl()}/docs`);
    await page.locator('.opblock').first().waitFor();
    expect(complaints).toEqual([]);
    await page.close();
  });
});

describe('while 1,000 messages are published', () => {
  const MESSAGES = 1_000;
  const inOrder = Array.from({ length: MESSAGES }, (_, i) => i + 1);
  const TOKEN_SECONDS = 12;
  let context: BrowserContext;
  let away: Page;
  let moved: Page;
  let renewed: Page;
  let link: TcpProxy;
  let door: TcpProxy;
  let asked: { readonly tokens: number };

  beforeAll(async () => {
    const gateways = [cluster.app('gateway', 0), cluster.app('gateway', 1)] as const;
    [link, door] = await Promise.all([
      startTcpProxy(gateways[1].port),
      startTcpProxy(() => (gateways[0].alive ? gateways[0] : gateways[1]).port),
    ]);
    const alone = await browser.newContext();
    context = await browser.newContext();
    [away, moved, renewed] = await Promise.all([alone.newPage(), context.newPage(), context.newPage()]);
    const urlOf = ({ port }: TcpProxy) => `http://127.0.0.1:${port}`;
    [, , asked] = await Promise.all([
      open(away, 'client.html', urlOf(link), 'dora'),
      open(moved, 'client.html', urlOf(door), 'erin'),
      open(renewed, 'client.html', gatewayUrl(), 'faye', () => ({ exp: seconds() + TOKEN_SECONDS })),
    ]);
    for (const page of [away, moved, renewed]) await page.locator('.ready').waitFor({ state: 'attached' });
    const pubsub = acme.pubsub();
    const publish = async (numbers: readonly number[]) => {
      for (const n of numbers) await pubsub.global.topic('news').publish({ n });
    };
    await publish(inOrder.slice(0, 300));
    // First the network takes every byte and gives nothing; then it is gone, and the system says so.
    link.stall();
    await Promise.all([publish(inOrder.slice(300, 600)), sleep(5_000)]);
    link.cut();
    await alone.setOffline(true);
    const killed = gateways[0].kill();
    await Promise.all([publish(inOrder.slice(600)), killed, sleep(5_000)]);
    link.restore();
    await alone.setOffline(false);
    await pubsub.close();
  }, 60_000);
  afterAll(async () => {
    await away?.context().close();
    await context?.close();
    await Promise.all([link, door].map((proxy) => proxy?.[Symbol.asyncDispose]()));
  });

  const shown = async (page: Page) => {
    await page.waitForFunction(`numbers.length >= ${MESSAGES}`);
    const [numbers, ids, gaps] = (await page.evaluate('[numbers, new Set(ids).size, gaps]')) as unknown[];
    expect(numbers).toEqual(inOrder);
    expect([ids, gaps]).toEqual([MESSAGES, []]);
  };

  it('a page without a network for 10 s shows all, once and in order', async () => {
    await shown(away);
  });

  it('a page whose gateway is killed goes to the other one, and shows all, once and in order', async () => {
    await shown(moved);
    expect(await moved.evaluate('new Set(connections).size')).toBeGreaterThan(1);
  });

  it('a page whose tokens live for seconds renews them, on the same connection', async () => {
    await shown(renewed);
    await renewed.waitForFunction('connections.length > 1');
    expect(asked.tokens).toBeGreaterThan(1);
    expect(await renewed.evaluate('new Set(connections).size')).toBe(1);
    expect(await renewed.locator('#state').textContent()).toBe('connected websocket');
  });
});
