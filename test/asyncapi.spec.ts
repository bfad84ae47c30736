import { Parser } from '@asyncapi/parser';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  asyncApiDocument,
  CATALOGUE,
  checkForCatalogue,
  describeCatalogue,
  describeRegistered,
  describeRooms,
  EXAMPLES,
  encodePath,
  mayPublish,
  mayReceive,
  ownTopic,
  type Principal,
  parseTopic,
  ROOM_SCOPES,
  roomTopic,
  rulesOf,
  subjectsOf,
  type TopicName,
  type TopicRecord,
  templateName,
} from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import fc from 'fast-check';
import { call } from './support/courier-client.js';
import { anyTenantSchema } from './support/tenant-schemas.js';

// biome-ignore lint/suspicious/noExplicitAny: tests look into documents of every shape
type Document = any;

const parser = new Parser();

/**
 * The document as AsyncAPI's own parser reads it, references resolved.
 * Its one remark that is let pass: 3.0.0 is not the latest version. Generators and viewers read that one today.
 */
async function parse(text: string): Promise<Document> {
  const { document, diagnostics } = await parser.parse(text);
  const told = diagnostics.filter(({ code }) => code !== 'asyncapi-latest-version');
  expect(told.map(({ message, path }) => `${path.join('/')}: ${message}`)).toEqual([]);
  return document!.json();
}

/** Every `$ref` that the parser has left as it was. */
function unresolved(value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, member]) => (name === '$ref' ? [member] : unresolved(member)));
}

const SOCKET_URL = 'wss://bus.example.org/prefix/ws';

describe('the AsyncAPI document of the catalogue', () => {
  const text = asyncApiDocument({ socketUrl: SOCKET_URL, topics: describeCatalogue() });
  const written: Document = JSON.parse(text);
  const entries = [...CATALOGUE.values()];

  it('is valid, and resolves', async () => {
    expect(unresolved(await parse(text))).toEqual([]);
  });

  it('has a channel, a message and two operations for every topic', () => {
    expect(Object.values<Document>(written.channels).map(({ address }) => address)).toEqual(
      entries.map(templateName),
    );
    for (const [id, channel] of Object.entries<Document>(written.channels)) {
      const entry = CATALOGUE.get(channel.messages.event.name)!;
      expect(channel.messages.event.payload).toEqual(JSON.parse(JSON.stringify(entry.payload)));
      expect(channel['x-posthorn-subjects']).toEqual(subjectsOf(entry));
      expect(written.operations[`send.${id}`]['x-posthorn-who'].modules).toEqual(entry.publishers);
      expect(written.operations[`receive.${id}`]['x-posthorn-who'].modules).toEqual(entry.subscribers);
      expect(channel.servers.map((one: Document) => one.$ref)).toEqual([
        ...(entry.scopes.includes('global') ? ['#/servers/gateway'] : []),
        '#/servers/nats',
      ]);
    }
    expect(Object.keys(written.operations)).toHaveLength(2 * entries.length);
  });

  it('tells aliases, parameters, and which of them are secret', () => {
    const { channels } = written;
    expect(channels['mongodb.connectionAvailable']['x-posthorn-aliases']).toEqual([
      'mongodb:connexionAvailable',
    ]);
    expect(channels.personal.parameters).toEqual({ username: { description: expect.any(String) } });
    expect(channels.client.parameters.id.description).toMatch(/^A secret/);
    expect(channels.client['x-posthorn-subjects'].global).toBe('ph.<audience>.global.<SHA-256 of id>.client');
  });

  it('names the socket as the gateway is reached', () => {
    expect(written.servers.gateway).toMatchObject({
      protocol: 'wss',
      host: 'bus.example.org',
      pathname: '/prefix/ws',
    });
  });

  it.each(entries.map(({ name }) => [name]))('has a valid example of %s', (name) => {
    const example = EXAMPLES[name as TopicName];
    expect(checkForCatalogue(name)(example)).toEqual([]);
    const channel = Object.values<Document>(written.channels).find(
      ({ messages }) => messages.event.name === name,
    );
    expect(channel.messages.event.examples).toEqual([{ payload: example }]);
  });

  it.each(entries.map((entry) => [entry.name, entry] as const))(
    'says of %s what the policy does',
    (_, entry) => {
      const { parameter } = entry;
      const topic = parameter ? ownTopic(entry.name, 'alice') : parseTopic(entry.name);
      const as = (role: Principal['role']): Principal => ({
        audience: 'acme',
        sub: 'alice',
        username: 'alice',
        role,
      });
      const rules = rulesOf(entry);
      for (const role of ['user', 'service', 'admin'] as const) {
        const scope = role === 'user' ? 'global' : entry.scopes[0]!;
        expect(rules.publish.roles.includes(role)).toBe(mayPublish(as(role), topic, scope));
        expect(rules.subscribe.roles.includes(role)).toBe(mayReceive(as(role), topic));
      }
    },
  );
});

describe('the AsyncAPI document of rooms', () => {
  const text = asyncApiDocument({ socketUrl: SOCKET_URL, topics: describeRooms() });
  const { channels, operations }: Document = JSON.parse(text);
  const room = { event_id: 'e', session_id: 's' };

  it('is valid, and resolves', async () => {
    expect(unresolved(await parse(text))).toEqual([]);
  });

  it('has the topics that members know an event by, with what differs as parameters', () => {
    const addresses = Object.values<Document>(channels).map(({ address }) => address);
    expect(addresses).toEqual(
      ROOM_SCOPES.map(
        (scope) =>
          roomTopic(scope, { event_id: '{event_id}', session_id: '{session_id}' }, '{eventName}').name,
      ),
    );
    expect(channels['room.event.*.*'].parameters).toEqual({
      event_id: { description: expect.any(String) },
      eventName: { description: '1 to 255 characters of anything' },
    });
    expect(channels['room.event.*.*']['x-posthorn-subjects']).toEqual({
      global: 'ph.<audience>.global.-.room.event.<event_id>.<eventName>',
    });
  });

  it.each(ROOM_SCOPES)('says who publishes as the policy does: %s', (scope) => {
    const id = scope === 'organization' ? 'room.organization.*' : `room.${scope}.*.*`;
    const member: Principal = { audience: 'acme', sub: '7', username: 'ann', role: 'user', room };
    const may = mayPublish(member, roomTopic(scope, room, 'a'), 'global');
    expect(operations[`send.${id}`].description).toMatch(
      may ? /^For members of the room;/ : /with a permission/,
    );
    expect(operations[`receive.${id}`].description).toMatch(/^For members of the room;/);
  });
});

describe('the AsyncAPI document of registered topics', () => {
  /** A record as the registry would give it. */
  const record = (topic: string, more: Partial<TopicRecord> = {}): TopicRecord => ({
    id: '0188f2b0-1234-7abc-8def-0123456789ab',
    topic,
    audience: 'acme',
    audienceId: '0188f2b0-1234-7abc-8def-0123456789ac',
    created_at: '2026-11-01T12:00:00.000Z',
    updated_at: '2026-11-01T12:00:00.000Z',
    path: encodePath(null, topic.split(/[:/.]/)),
    durable: true,
    ...more,
  });
  const documentOf = (records: readonly TopicRecord[]) =>
    asyncApiDocument({
      socketUrl: SOCKET_URL,
      audience: 'acme',
      topics: [...describeCatalogue(), ...records.map((one) => describeRegistered(one)!)],
    });

  it('is valid for any schema that the registry accepts', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyTenantSchema, { minLength: 60, maxLength: 60 }), async (schemas) => {
        const text = documentOf(schemas.map((schema, i) => record(`t/${i}`, { schema })));
        expect(unresolved(await parse(text))).toEqual([]);
      }),
      { numRuns: 4 },
    );
  });

  it('is valid for any name, and has a channel of its own for each', async () => {
    const segment = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 8 })
      .filter((text) => !/[\s\p{Cc}*>:/.]/u.test(text) && text.isWellFormed());
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(segment, { minLength: 40, maxLength: 40, selector: (one) => encodePath(null, [one]) }),
        async (names) => {
          const read = await parse(documentOf(names.map((one) => record(`t/${one}`))));
          const titles = Object.values<Document>(read.channels).map(({ title }) => title);
          expect(titles).toEqual(expect.arrayContaining(names.map((one) => `t/${one}`)));
        },
      ),
      { numRuns: 4 },
    );
  });

  it('says who may use what the platform or a room has reserved', () => {
    const described = (name: string) => {
      const { operations } = describeRegistered(record(name))! as Document;
      return Object.values<Document>(operations).map((one) => [one['x-posthorn-who'].roles, one.description]);
    };
    const all = ['user', 'service', 'admin'];
    expect(described('system/events')).toEqual([
      [all, 'For any member of the audience.'],
      [all, 'For any member of the audience.'],
    ]);
    expect(described('community:of-ours')).toEqual([
      [['service', 'admin'], 'For role service or admin.'],
      [['service', 'admin'], 'For role service or admin.'],
    ]);
    expect(described('room/session/7/chat')).toEqual([
      [all, 'For members of the room; role service or admin.'],
      [all, 'For members of the room; role service or admin.'],
    ]);
  });
});

describe('GET /v1/asyncapi.json', () => {
  let cluster: TestCluster;
  let base: string;
  const tokens: Record<string, string> = {};
  const ODD = [
    'café/☕',
    'caf=C3=A9/=E2=98=95',
    'café',
    'say/"hi"/it\'s',
    'to/{user}/and}{',
    '__proto__',
    'constructor',
    'hasOwnProperty',
    '$ref',
    '#?/%2F~1/=',
    '<<',
    'room/event/7/a b/c.d',
  ];

  const get = (token?: string, query = '', headers: Record<string, string> = {}) =>
    call(base, token, 'GET', `/v1/asyncapi.json${query}`, undefined, headers);
  const register = async (token: string, body: object) => {
    const { status } = await call(base, token, 'POST', '/v1/topic', body);
    expect(status).toBe(201);
  };
  const titles = (document: Document): string[] =>
    Object.values<Document>(document.channels).map(({ title }) => title);
  const own = (document: Document) => titles(document).slice(CATALOGUE.size + describeRooms().length);

  beforeAll(async () => {
    cluster = await startCluster({ replicas: { notifier: 0 } });
    base = cluster.gatewayUrls[0]!;
    for (const aud of ['acme', 'globex', 'big']) {
      tokens[aud] = await cluster.token({ aud, sub: 'svc', role: 'service' });
      expect((await call(base, tokens[aud], 'POST', '/v1/audience')).status).toBe(201);
    }
    for (const topic of ODD) await register(tokens.acme!, { topic });
    await register(tokens.acme!, {
      topic: 'orders/placed',
      retention: 3_600,
      schema: {
        type: 'object',
        properties: { lines: { type: 'array', prefixItems: [{ $ref: '#/$defs/line' }], items: false } },
        $defs: { line: { type: 'string' } },
      },
    });
    await register(tokens.acme!, { topic: 'typing', durable: false });
    await register(tokens.acme!, { topic: 'community:join' });
    await register(tokens.acme!, { topic: 'personal.alice' });
    await register(tokens.globex!, { topic: 'secret/plan' });
  }, 120_000);
  afterAll(async () => cluster[Symbol.asyncDispose]());

  it('is the catalogue for whoever has no token, the same for all', async () => {
    const { status, headers, body } = await get();
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(headers.get('cache-control')).toBe('public, max-age=300');
    expect(headers.get('vary')).toContain('Authorization');
    expect(own(body)).toEqual([]);
    expect(body.info['x-posthorn-audience']).toBeUndefined();
    expect(body.servers.gateway.host).toBe(new URL(base).host);
    await parse(JSON.stringify(body));
  });

  it("has an audience's registered topics for its members, whatever they are called", async () => {
    const { status, headers, body } = await get(tokens.acme);
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('private, no-cache');
    expect(body.info['x-posthorn-audience']).toBe('acme');
    expect(own(body).sort()).toEqual([...ODD, 'orders/placed', 'typing'].sort());
    const read = await parse(JSON.stringify(body));
    expect(titles(read).sort()).toEqual(titles(body).sort());
    expect(unresolved(read)).toEqual([]);
    const { 'orders.placed': orders, typing } = read.channels;
    expect(orders).toMatchObject({ 'x-posthorn-durable': true, 'x-posthorn-retention': 3_600 });
    expect(orders.messages.event.payload).toMatchObject({
      schemaFormat: 'application/schema+json;version=2020-12',
      schema: { properties: { lines: { prefixItems: [{ allOf: [{ type: 'string' }] }], items: false } } },
    });
    expect(typing).toMatchObject({ 'x-posthorn-durable': false });
  });

  it('shows an ordinary user what GET /v1/topic shows it, less what the catalogue has', async () => {
    const token = await cluster.token({ aud: 'acme', sub: 'alice' });
    const listed = (await call(base, token, 'GET', '/v1/topic')).body.map((one: Document) => one.topic);
    const { body } = await get(token);
    expect([...own(body), 'community:join', 'personal.alice'].sort()).toEqual(listed.sort());
    expect(JSON.stringify(body)).not.toContain('personal.alice');
  });

  it('has nothing of one audience in the document of another, nor in what nobody has to ask for', async () => {
    expect(own((await get(tokens.globex)).body)).toEqual(['secret/plan']);
    for (const token of [undefined, tokens.acme]) {
      expect(JSON.stringify((await get(token)).body)).not.toContain('secret/plan');
    }
  });

  it('refuses a token that is broken, expired, of another key or of an unknown audience', async () => {
    const expired = await cluster.token({ aud: 'acme', exp: 1 });
    const refused = async (authorization: string) => {
      const { status, body } = await get(undefined, '', { authorization });
      expect(body.channels).toBeUndefined();
      return [status, body.code];
    };
    expect(await refused('')).toEqual([401, 'unauthorized']);
    expect(await refused('Bearer')).toEqual([401, 'unauthorized']);
    expect(await refused('Bearer x.y.z')).toEqual([401, 'unauthorized']);
    expect(await refused(`Bearer ${tokens.acme}x`)).toEqual([401, 'unauthorized']);
    expect(await refused(`Bearer ${expired}`)).toEqual([401, 'token_expired']);
    expect(await refused(`Bearer ${await cluster.token({ aud: 'nobody' })}`)).toEqual([
      404,
      'audience_not_found',
    ]);
  });

  it('answers 304 to whoever has it, until it changes', async () => {
    const everybody = (await get()).headers.get('etag')!;
    const before = (await get(tokens.globex)).headers.get('etag')!;
    expect(before).not.toBe(everybody);
    for (const known of [before, `W/${before}`, `"other", ${before}`, '*']) {
      const { status, headers, body } = await get(tokens.globex, '', { 'if-none-match': known });
      expect([status, body, headers.get('etag')]).toEqual([304, '', before]);
    }
    expect((await get(tokens.globex, '', { 'if-none-match': everybody })).status).toBe(200);
    expect((await get(undefined, '', { 'if-none-match': before })).status).toBe(200);
    await register(tokens.globex!, { topic: 'another/plan' });
    const { status, body } = await get(tokens.globex, '', { 'if-none-match': before });
    expect(status).toBe(200);
    expect(own(body)).toEqual(['secret/plan', 'another/plan']);
  });

  it('comes in parts where an audience has registered more than one holds', async () => {
    const names = Array.from({ length: 50 }, (_, i) => `big/${i}`);
    const schema = { type: 'object', description: 'x'.repeat(30_000) };
    for (const topic of names) await register(tokens.big!, { topic, schema });
    const first = (await get(tokens.big)).body;
    const next = first.info['x-posthorn-next'];
    expect(next).toEqual(expect.any(String));
    const rest = (await get(tokens.big, `?after=${next}`)).body;
    expect(rest.info['x-posthorn-next']).toBeUndefined();
    expect([...own(first), ...own(rest)]).toEqual(names);
    expect(JSON.stringify(first).length).toBeLessThan(1.25 * 1024 * 1024);
    expect((await get(tokens.big, '?after=x')).body.code).toBe('request_invalid');
  }, 60_000);

  it('is made for an audience so often, and for others all the same', async () => {
    const asked = await Promise.all(Array.from({ length: 40 }, () => get(tokens.big, '?after=x')));
    const refused = asked.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]!.body.code).toBe('rate_limited');
    expect((await get(tokens.acme)).status).toBe(200);
    expect((await get()).status).toBe(200);
  });

  it('leads to the document from the page for people', async () => {
    const { body } = await call(base, undefined, 'GET', '/docs-json');
    expect(body.info.description).toContain('(/v1/asyncapi.json)');
    expect(body.paths['/v1/asyncapi.json'].get.security).toEqual([{}, { jwt: [] }]);
  });
});
