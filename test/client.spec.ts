/** The client SDK against the real cluster: what its guarantees are worth when gateways die, tokens end and sockets are refused. */
import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  type ConnectionState,
  type Gap,
  Posthorn,
  PosthornError,
  type PosthornOptions,
  Rooms,
  type WebSocketConstructor,
  type Welcome,
} from '@posthorn/client';
import { Collected, startCluster, startTcpProxy, type TcpProxy, type TestCluster } from '@posthorn/testing';
import { WebSocket } from 'ws';
import { createTenant, seconds, type Tenant } from './support/tenant.js';

const Socket = WebSocket as unknown as WebSocketConstructor;

let cluster: TestCluster;
let acme: Tenant;
let balancer: TcpProxy;
let url: string;
/** The gateway that new connections come to. */
let turn = 0;
const open: { close(): void }[] = [];

beforeAll(async () => {
  cluster = await startCluster({ replicas: { gateway: 2 }, env: { DRAIN_BUDGET: '2s' } });
  acme = await createTenant(cluster, 'acme');
  balancer = await startTcpProxy(() => cluster.app('gateway', turn).port);
  url = `http://127.0.0.1:${balancer.port}`;
}, 90_000);
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});
afterAll(async () => {
  await balancer?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});

interface Known {
  readonly client: Posthorn;
  readonly states: Collected<ConnectionState>;
  readonly welcomes: Collected<Welcome>;
  readonly errors: Collected<PosthornError>;
}

/** A client that is closed after the test. */
function connect(sub: string, claims: object = {}, options: Partial<PosthornOptions> = {}): Known {
  const client = new Posthorn({
    url,
    WebSocket: Socket,
    getToken: () => acme.token(sub, claims),
    ...options,
  });
  open.push(client);
  const known = {
    client,
    states: new Collected<ConnectionState>(),
    welcomes: new Collected<Welcome>(),
    errors: new Collected<PosthornError>(),
  };
  client.on('state', known.states.add);
  client.on('welcome', known.welcomes.add);
  client.on('error', known.errors.add);
  return known;
}

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

describe('a client', () => {
  it('hears what it publishes right after subscribing, on the topic, its other spelling and a pattern', async () => {
    const { client } = connect('svc', { role: 'service' });
    const heard = new Collected<[string, number, string]>();
    for (const name of ['own/a', 'own:a', 'own.*'] as const) {
      client.subscribe<{ n: number }>(name, ({ n }, { id, topic }) => heard.add([name, n, `${topic} ${id}`]));
    }
    const receipts = await Promise.all(
      numbers(3).map((n) => client.publish('own/a', { n }, { id: `event-${n}` })),
    );
    expect(receipts.map(({ id }) => id)).toEqual(['event-0', 'event-1', 'event-2']);
    await heard.until(9);
    for (const name of ['own/a', 'own:a', 'own.*']) {
      const own = heard.items.filter(([one]) => one === name);
      expect(own.map(([, ...rest]) => rest)).toEqual(numbers(3).map((n) => [n, `own/a event-${n}`]));
    }
  });

  it('tells a refusal by its code, and goes on', async () => {
    const { client, errors } = connect('ann');
    const refused = client.subscribe('user:bob', () => {});
    await expect(refused.ready).rejects.toMatchObject({ code: 'forbidden' });
    expect(errors.items.map(({ code }) => code)).toEqual(['forbidden']);
    await expect(client.publish('login:success', {})).rejects.toMatchObject({ code: 'forbidden' });
    await expect(client.publish('big', { pad: 'x'.repeat(80_000) })).rejects.toMatchObject({
      code: 'payload_too_large',
      status: 413,
    });
    await expect(client.request('GET', '/v1/nothing')).rejects.toMatchObject({ code: 'route_not_found' });
    expect(await client.request('GET', '/v1/topic')).toEqual(expect.any(Array));
    await client.publish('small', {});
    expect(client.state.status).toBe('connected');
  });

  it('resumes from a position that was kept, and says where history is lost', async () => {
    const first = connect('ann');
    const heard = new Collected<[number, string | undefined]>();
    const { ready } = first.client.subscribe<{ n: number }>('kept', ({ n }, { position }) =>
      heard.add([n, position]),
    );
    await ready;
    for (const n of numbers(5)) await first.client.publish('kept', { n });
    await heard.until(5);
    first.client.close();
    const second = connect('ann');
    const later = new Collected<number>();
    const gaps = new Collected<Gap>();
    const since = heard.items[1]![1]!;
    second.client.subscribe<{ n: number }>('kept', ({ n }) => later.add(n), { since });
    await later.until(3);
    // A handler that joins with a place of its own gets its own history, the others nothing twice.
    const joined = new Collected<number>();
    second.client.subscribe<{ n: number }>('kept', ({ n }) => joined.add(n), { since: heard.items[0]![1]! });
    await joined.until(4);
    const lost = new Collected<number>();
    second.client.subscribe<{ n: number }>('kept', ({ n }) => lost.add(n), {
      since: 'another-7',
      onGap: gaps.add,
    });
    await lost.until(5);
    await second.client.publish('kept', { n: 5 });
    await Promise.all([later.until(4), joined.until(5), lost.until(6)]);
    expect([later.items, joined.items, lost.items]).toEqual([
      [2, 3, 4, 5],
      [1, 2, 3, 4, 5],
      [0, 1, 2, 3, 4, 5],
    ]);
    expect(gaps.items).toEqual([{ topic: 'kept', since: 'another-7', position: expect.any(String) }]);
  });
});

describe('1,000 messages', () => {
  it('come once and in order on topics, patterns and broadcasts while gateways are killed and drained', async () => {
    const { client, states } = connect('svc', { role: 'service' });
    const exact = new Collected<number>();
    const pattern = new Collected<[string, number]>();
    const broadcasts = new Collected<number>();
    const gaps = new Collected<Gap>();
    client.on('gap', gaps.add);
    const add = <T>({ n }: { n: T }) => n;
    await Promise.all([
      client.subscribe<{ n: number }>('kill/0', (message) => exact.add(add(message))).ready,
      client.subscribe<{ n: number }>('kill.>', ({ n }, { topic }) => pattern.add([topic, n])).ready,
      client.onBroadcast<{ n: number }>((message) => broadcasts.add(add(message))).ready,
    ]);
    const pubsub = acme.pubsub();
    const gateways = [cluster.app('gateway', 0), cluster.app('gateway', 1)];
    // The SDK, too: what it publishes gets through whatever happens.
    const { client: announcer } = connect('other', { role: 'service' });
    const announced: Promise<unknown>[] = [];
    const publish = async (from: number, to: number) => {
      for (let n = from; n < to; n++) {
        await pubsub.global.topic(`kill/${n % 4}`).publish({ n });
        if (n % 100 === 0) announced.push(announcer.broadcast({ n }));
      }
    };
    await publish(0, 300);
    const publishing = publish(300, 700);
    await exact.until(100);
    turn = 1;
    await gateways[0]!.kill();
    await publishing;
    await states.until((all) => all.filter(({ status }) => status === 'connected').length === 2);
    const restarted = gateways[0]!.start();
    await publish(700, 850);
    await restarted;
    turn = 0;
    const draining = gateways[1]!.kill('SIGTERM');
    await publish(850, 1_000);
    await draining;
    await gateways[1]!.start();
    await Promise.all([...announced, exact.until(250), pattern.until(1_000), broadcasts.until(10)]);
    await client.publish('kill/0', { n: 1_000 });
    await Promise.all([exact.until(251), pattern.until(1_001)]);
    expect(exact.items).toEqual(numbers(251).map((n) => n * 4));
    for (const topic of numbers(4)) {
      const own = pattern.items.filter(([name]) => name === `kill/${topic}`).map(([, n]) => n);
      expect(own).toEqual(numbers(1_001).filter((n) => n % 4 === topic));
    }
    expect(broadcasts.items).toEqual(numbers(10).map((n) => n * 100));
    expect(gaps.items).toEqual([]);
    await pubsub.close();
  }, 60_000);
});

describe('a publish', () => {
  it('whose answer is lost is sent again on the next connection, and stored once', async () => {
    let cut = true;
    class LosesAnswers extends WebSocket {
      constructor(address: string, protocols: string[]) {
        super(address, protocols);
        this.prependListener('message', (data) => {
          if (!cut || !String(data).includes('"published"')) return;
          cut = false;
          // What comes after a terminate is not handed over any more.
          this.onmessage = null;
          this.terminate();
        });
      }
    }
    const { client } = connect('ann', {}, { WebSocket: LosesAnswers as unknown as WebSocketConstructor });
    const { client: other } = connect('bob');
    const heard = new Collected<number>();
    await other.subscribe<{ n: number }>('lost/ack', ({ n }) => heard.add(n)).ready;
    const receipts = await Promise.all(numbers(5).map((n) => client.publish('lost/ack', { n })));
    expect(cut).toBe(false);
    expect(new Set(receipts.map(({ position }) => position)).size).toBe(5);
    await other.publish('lost/ack', { n: 5 });
    await heard.until((items) => items.includes(5));
    expect(heard.items).toEqual(numbers(6));
  });
});

describe('tokens', () => {
  it('are renewed in place ahead of their end, and after it on another connection', async () => {
    let asked = 0;
    const { welcomes, errors } = connect(
      'ann',
      {},
      {
        getToken: () => acme.token('ann', { exp: seconds() + 5, jti: `t${asked++}` }),
      },
    );
    await welcomes.until(2);
    expect(new Set(welcomes.items.map(({ connection }) => connection)).size).toBe(1);
    expect(asked).toBe(2);
    expect(errors.items).toEqual([]);
    // One that hands out the same token until the gateway has ended its connection: while that stands, a token that is
    // given in the moment of the old one's end still renews it in place.
    const tokens = [await acme.token('bob', { exp: seconds() + 2 }), await acme.token('bob')];
    let ended = false;
    const late = connect('bob', {}, { getToken: () => tokens[ended ? 1 : 0]! });
    late.client.on('state', ({ status }) => {
      ended ||= late.welcomes.items.length > 0 && status !== 'connected';
    });
    await late.welcomes.until((all) => new Set(all.map(({ connection }) => connection)).size === 2);
  });

  it('that are revoked are replaced by what getToken gives next', async () => {
    let revoked = false;
    const issued = await acme.token('eve', { iat: seconds() - 60 });
    const { client, welcomes, errors } = connect(
      'eve',
      {},
      {
        getToken: () => (revoked ? acme.token('eve', { iat: seconds() + 1 }) : issued),
      },
    );
    const heard = new Collected<number>();
    await client.subscribe<{ n: number }>('revoked', ({ n }) => heard.add(n)).ready;
    revoked = true;
    const admin = await acme.as('root', { role: 'admin' });
    await admin('POST', '/v1/revocations', { sub: 'eve', issuedBefore: seconds() - 30 });
    await welcomes.until(2);
    expect(errors.items.map(({ code }) => code)).toContain('unauthorized');
    await client.publish('revoked', { n: 1 });
    await heard.until(1);
  });

  it('that cannot be had are asked for again', async () => {
    let calls = 0;
    const { welcomes, errors } = connect(
      'ann',
      {},
      {
        getToken: () => {
          if (calls++ === 0) throw new Error('not now');
          return acme.token('ann');
        },
      },
    );
    await welcomes.until(1);
    expect(errors.items.map(({ code }) => code)).toEqual(['token_failed']);
    expect(calls).toBe(2);
  });
});

describe('where no WebSocket gets through', () => {
  /** Passes HTTP on and refuses upgrades, as some proxies of offices do. */
  async function startOfficeProxy(): Promise<Server> {
    const proxy = createServer((incoming, outgoing) => {
      const { method, headers, url: path } = incoming;
      const onward = request(`${url}${path}`, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      onward.on('error', () => outgoing.destroy());
      outgoing.on('close', () => onward.destroy());
      incoming.pipe(onward);
    });
    proxy.on('upgrade', (_, socket) => socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n'));
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    return proxy;
  }

  it('streams over HTTP: the same events, once and in order, and publishes', async () => {
    const proxy = await startOfficeProxy();
    const { client, states } = connect(
      'svc',
      { role: 'service' },
      {
        url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
      },
    );
    const exact = new Collected<number>();
    const pattern = new Collected<number>();
    const broadcasts = new Collected<number>();
    await client.subscribe<{ n: number }>('office/0', ({ n }) => exact.add(n)).ready;
    expect(states.items.at(-1)).toMatchObject({ status: 'connected', transport: 'stream' });
    for (const n of numbers(10)) await client.publish('office/0', { n });
    client.subscribe<{ n: number }>('office.>', ({ n }) => pattern.add(n));
    client.onBroadcast<{ n: number }>(({ n }) => broadcasts.add(n));
    await client.publish('office/1', { n: 10 });
    await client.broadcast({ n: 11 });
    await client.publish('office/0', { n: 12 });
    await Promise.all([exact.until(11), pattern.until(2), broadcasts.until(1)]);
    // Every connection of the proxy breaks.
    proxy.closeAllConnections();
    await acme.service('POST', '/v1/hook', { topic: 'office/0', action: 'publish', message: { n: 13 } });
    await client.publish('office/1', { n: 14 });
    await Promise.all([exact.until(12), pattern.until(4)]);
    expect(exact.items).toEqual([...numbers(10), 12, 13]);
    expect(pattern.items).toEqual([10, 12, 13, 14]);
    expect(broadcasts.items).toEqual([11]);
    client.close();
    proxy.closeAllConnections();
    proxy.close();
  }, 30_000);
});

describe('rooms', () => {
  const room = { event_id: 'e1', session_id: 's1' };

  function join(sub: string, options: Partial<PosthornOptions> = {}): Rooms {
    const rooms = new Rooms();
    open.push(rooms);
    rooms.connect({ url, WebSocket: Socket, getToken: () => acme.token(sub, { room }), ...options });
    return rooms;
  }

  it('are spoken to by event names: calls made before the connection keep their order', async () => {
    const ann = new Rooms();
    open.push(ann);
    const heard = new Collected<object>();
    ann.subscribe('say-hello', heard.add);
    const published = [1, 2, 3].map((n) => ann.publish('say-hello', { data: { n } }));
    ann.connect({ url, WebSocket: Socket, getToken: () => acme.token('ann', { room }) });
    await Promise.all(published);
    const bob = join('bob', { transport: 'stream' });
    const others = new Collected<object>();
    const leave = bob.subscribe('say-hello', others.add);
    await bob.publish('say-hello', { data: { custom: 'payload' } });
    await others.until(1);
    await heard.until(4);
    expect(heard.items).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }, { custom: 'payload' }]);
    expect(others.items).toEqual([{ custom: 'payload' }]);
    leave();
    await expect(ann.publish('say-hello', { data: {}, scope: 'organization' })).rejects.toMatchObject({
      code: 'forbidden',
    });
  });

  it('refuse to publish with a token that names none, and tell it to who only listens', async () => {
    const rooms = new Rooms();
    open.push(rooms);
    const client = rooms.connect({ url, WebSocket: Socket, getToken: () => acme.token('ann') });
    const errors = new Collected<PosthornError>();
    client.on('error', errors.add);
    rooms.subscribe('say-hello', () => {});
    const early = rooms.publish('say-hello', { data: {} });
    await expect(early).rejects.toMatchObject({ code: 'no_room' });
    await errors.until(1);
    expect(errors.items).toMatchObject([{ code: 'handler_failed', cause: { code: 'no_room' } }]);
    const late = rooms.publish('say-hello', { data: {} });
    await expect(late).rejects.toMatchObject({ code: 'no_room' });
  });
});

describe('close', () => {
  it('ends everything that waits, and leaves nothing running', async () => {
    const { client, states } = connect('ann');
    await states.until((all) => all.some(({ status }) => status === 'connected'));
    const { ready } = client.subscribe('closing', () => {});
    const publish = client.publish('closing', {});
    client.close();
    const end = { code: 'closed' };
    await expect(ready).rejects.toMatchObject(end);
    await expect(publish).rejects.toMatchObject(end);
    await expect(client.publish('closing', {})).rejects.toMatchObject(end);
    await expect(client.subscribe('closing', () => {}).ready).rejects.toMatchObject(end);
    await expect(client.request('GET', '/v1/topic')).rejects.toMatchObject(end);
    expect(client.state).toEqual({ status: 'closed' });
    expect(PosthornError.prototype).toBeInstanceOf(Error);
  });
});
