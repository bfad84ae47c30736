import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import { connect as connectNats } from '@nats-io/transport-node';
import { BUCKETS } from '@posthorn/contracts';
import {
  Collected,
  eventually,
  freePort,
  prepareBus,
  startNats,
  startTcpProxy,
  type TestNats,
} from '@posthorn/testing';
import { connectPubSub, type EventInfo, type PubSub, type PubSubOptions } from './pubsub.js';

let nats: TestNats;
let counter = 0;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, {
    audiences: ['acme', 'beta'],
    topics: [{ topic: 'cursor/moves', audience: 'acme', durable: false }],
  });
});

afterAll(async () => {
  await nats[Symbol.asyncDispose]();
});

interface TestPubSub extends PubSub, AsyncDisposable {
  readonly errors: Collected<{ error: unknown; topic: string }>;
}

function open(more: Partial<PubSubOptions> = {}): TestPubSub {
  const errors = new Collected<{ error: unknown; topic: string }>();
  const onError = (error: unknown, topic: string) => errors.add({ error, topic });
  const pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source: 'test', onError, ...more });
  return Object.assign(pubsub, { errors, [Symbol.asyncDispose]: () => pubsub.close() });
}

const unique = () => `topic${++counter}`;

describe('pubsub', () => {
  it('publishes and hears on local and global, each on its own', async () => {
    await using pubsub = open();
    const heard = new Collected<unknown>();
    const name = unique();
    await pubsub.local.topic(name).subscribe((payload) => heard.add(['local', payload])).ready;
    await pubsub.global.topic(name).subscribe((payload) => heard.add(['global', payload])).ready;
    await pubsub.local.topic(name).publish({ n: 1 });
    const receipt = await pubsub.global.topic(name).publish({ n: 2 });
    expect(receipt).toMatchObject({ duplicate: false, position: { sequence: expect.any(Number) } });
    await heard.until(2);
    expect(heard.items).toEqual(
      expect.arrayContaining([
        ['local', { n: 1 }],
        ['global', { n: 2 }],
      ]),
    );
  });

  it('tells a handler everything about its event', async () => {
    await using pubsub = open();
    const infos = new Collected<EventInfo>();
    await pubsub.global.topic('message:stored').subscribe((_, info) => infos.add(info)).ready;
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await pubsub.global.topic('message:stored').publish({ _id: 1 }, { id: 'my-id', traceparent });
    const [info] = await infos.until(1);
    expect(info!.delivery).toBeUndefined();
    expect(info!.event).toMatchObject({
      id: 'my-id',
      traceparent,
      topic: { name: 'message:stored' },
      audience: 'acme',
    });
  });

  it('forwards: one event on both scopes, under one id', async () => {
    await using pubsub = open();
    const heard = new Collected<string>();
    await pubsub.local.topic('message:stored').subscribe((_, { event }) => heard.add(event.id)).ready;
    await pubsub.global.topic('message:stored').subscribe((_, { event }) => heard.add(event.id)).ready;
    const [local, global] = await pubsub.local.topic('message:stored').forward(pubsub.global, { a: 1 });
    expect(local.id).toBe(global.id);
    expect(await heard.until(2)).toEqual([local.id, local.id]);
  });

  it('forwards again what is missing on one scope, under the same id, and says which it is', async () => {
    await using pubsub = open();
    await using away = open({ servers: `127.0.0.1:${await freePort()}`, connectTimeout: 100 });
    const heard = new Collected<string>();
    const topic = pubsub.local.topic('message:stored');
    for (const scope of [pubsub.local, pubsub.global])
      await scope.topic('message:stored').subscribe((_, { event }) => heard.add(`${scope.scope} ${event.id}`))
        .ready;
    const options = { idempotencyKey: 'message 1' };
    await expect(topic.forward(away.global, { _id: 1 }, options)).rejects.toMatchObject({
      code: 'unavailable',
      detail: expect.stringMatching(/^Published on local, missing on global: No connection/),
    });
    const [local, global] = await topic.forward(pubsub.global, { _id: 1 }, options);
    expect(local).toMatchObject({ id: global.id, duplicate: true });
    expect(global.duplicate).toBe(false);
    expect(await heard.until(2)).toEqual([`local ${local.id}`, `global ${local.id}`]);
  });

  it('rejects a forward of which nothing is published as a publish of its own', async () => {
    await using pubsub = open();
    const topic = pubsub.local.topic(unique());
    await expect(topic.forward(pubsub.global, { x: 'x'.repeat(1 << 20) })).rejects.toMatchObject({
      code: 'payload_too_large',
      detail: expect.stringMatching(/^The payload has/),
    });
    await expect(topic.forward(pubsub.global, 1n, { idempotencyKey: 'k' })).rejects.toMatchObject({
      code: 'request_invalid',
    });
  });

  it('publishes `{}` without data, and an error as name and message, wherever it stands', async () => {
    await using pubsub = open();
    const name = unique();
    const heard = new Collected<unknown>();
    await pubsub.local.topic(name).subscribe((payload) => heard.add(payload)).ready;
    await pubsub.local.topic(name).publish();
    await pubsub.local.topic(name).publish(new TypeError('broken'));
    await pubsub.local.topic(name).publish({ list: [{ error: new RangeError('far') }], at: new Date(0) });
    expect(await heard.until(3)).toEqual([
      {},
      { name: 'TypeError', message: 'broken' },
      { list: [{ error: { name: 'RangeError', message: 'far' } }], at: '1970-01-01T00:00:00.000Z' },
    ]);
  });

  it('checks what will be stored: a date is a text by then', async () => {
    await using pubsub = open();
    const activity = { source: '1', targets: [], message: '2', date: new Date(), verb: 'post' };
    await pubsub.local.topic('message:activity' as string).publish(activity);
    await expect(
      pubsub.local.topic('message:activity' as string).publish({ verb: 'post' }),
    ).rejects.toMatchObject({
      code: 'payload_invalid',
    });
  });

  it('rejects what is no payload, no topic, too large, or of no audience', async () => {
    await using pubsub = open();
    const topic = pubsub.local.topic(unique());
    for (const data of [[1], 'text', 7, null, true, 1n, () => {}, Symbol('s')]) {
      await expect(topic.publish(data)).rejects.toMatchObject({ code: 'request_invalid' });
    }
    await expect(pubsub.local.topic('no topic').publish()).rejects.toMatchObject({ code: 'request_invalid' });
    expect(() => pubsub.local.topic('no topic').subscribe(() => {})).toThrow('white space');
    await expect(topic.publish({ x: 'x'.repeat(1 << 20) })).rejects.toMatchObject({
      code: 'payload_too_large',
    });
    await using stranger = open({ audience: 'nobody' });
    await expect(stranger.local.topic('a').publish()).rejects.toMatchObject({ code: 'unavailable' });
    expect(() => open({ audience: '' })).toThrow('audience');
  });

  it('keeps audiences and instances apart', async () => {
    await using acme = open();
    await using beta = open({ audience: 'beta' });
    await using north = open({ instance: 'north' });
    const name = unique();
    const heard = new Collected<string>();
    for (const [by, pubsub] of Object.entries({ acme, beta, north })) {
      await pubsub.local
        .topic(name)
        .subscribe((payload) => heard.add(`${by} ${(payload as { of: string }).of}`)).ready;
    }
    for (const [of, pubsub] of Object.entries({ acme, beta, north }))
      await pubsub.local.topic(name).publish({ of });
    expect([...(await heard.until(3))].sort()).toEqual(['acme acme', 'beta beta', 'north north']);
  });
});

describe('names', () => {
  it('either spelling of a topic hears both', async () => {
    await using pubsub = open();
    const heard = new Collected<string>();
    const { local } = pubsub;
    await local.topic('mongodb:connexionAvailable').subscribe(() => heard.add('connexion')).ready;
    await local.topic('mongodb:connectionAvailable').subscribe(() => heard.add('connection')).ready;
    await local.topic('mongodb:connectionAvailable').publish();
    await heard.until(2);
    await local.topic('mongodb:connexionAvailable').publish();
    await heard.until(4);
    expect([...heard.items].sort()).toEqual(['connection', 'connection', 'connexion', 'connexion']);
  });

  it('a durable subscription by one spelling hears both, and the other one ends it', async () => {
    await using pubsub = open({ instance: unique() });
    const heard = new Collected<string>();
    const { local } = pubsub;
    const handler = (_: unknown, { event }: EventInfo) => void heard.add(event.id);
    await local.topic('mongodb:connexionAvailable').subscribe(handler, { durable: 'redis' }).ready;
    const [one, two] = [
      await local.topic('mongodb:connectionAvailable').publish(),
      await local.topic('mongodb:connexionAvailable').publish(),
    ];
    expect(await heard.until(2)).toEqual([one.id, two.id]);
    await local.topic('mongodb:connectionAvailable').unsubscribe(handler);
    const kept = await local.topic('mongodb:connexionAvailable').publish();
    const later = new Collected<string>();
    local
      .topic('mongodb:connectionAvailable')
      .subscribe((_, { event }) => later.add(event.id), { durable: 'redis' });
    expect(await later.until(1)).toEqual([kept.id]);
    expect(heard.items).toHaveLength(2);
  });

  it('a topic with a hidden parameter goes to its target, and is heard for every one', async () => {
    await using pubsub = open();
    const heard = new Collected<string | null>();
    const topic = pubsub.global.topic('usernotification:updated');
    await topic.subscribe((_, { event }) => heard.add(event.topic.key)).ready;
    await topic.publish({ target: '7', unread_count: 0, version: 1 });
    await topic.publish({ target: 'b.c', unread_count: 0, version: 2 });
    expect(await heard.until(2)).toEqual(['7', 'b.c']);
    const without = pubsub.global.topic('usernotification:updated' as string);
    await expect(without.publish({ unread_count: 0, version: 3 })).rejects.toMatchObject({
      code: 'request_invalid',
    });
  });

  it('a pattern takes topics and the parameters of templates', async () => {
    await using pubsub = open();
    const heard = new Collected<string>();
    await pubsub.global.topic('local_sync.>').subscribe((_, { event }) => heard.add(event.topic.name)).ready;
    const sync = { username: 'alice.smith', debounce_id: 'd', start: 's', head: 'h' };
    await pubsub.global.topic('local_sync.alice.smith' as string).publish(sync);
    expect(await heard.until(1)).toEqual(['local_sync.alice.smith']);
  });
});

describe('a live handler', () => {
  it('hears ephemeral topics like others, whose events have no position', async () => {
    await using pubsub = open();
    const infos = new Collected<EventInfo>();
    await pubsub.global.topic('cursor.>').subscribe((_, info) => infos.add(info)).ready;
    const subscription = pubsub.global.topic('cursor:moves').subscribe((_, info) => infos.add(info));
    expect(await pubsub.global.topic('cursor/moves').publish({ x: 1 })).not.toHaveProperty('position');
    const receipt = await pubsub.global.topic('cursor/stored').publish({ x: 2 });
    const events = (await infos.until(3)).map(({ event }) => event);
    expect(events.filter(({ position }) => position)).toMatchObject([{ position: receipt.position }]);
    expect(events.filter(({ position }) => !position).map(({ message }) => message)).toEqual([
      { x: 1 },
      { x: 1 },
    ]);
    await subscription.close();
    await pubsub.global.topic('cursor/moves').publish({ x: 3 });
    await infos.until(4);
    await pubsub.global.topic('cursor/stored').publish({ x: 4 });
    expect(await infos.until(5)).toHaveLength(5);
  });

  it('that fails is reported, and goes on', async () => {
    await using pubsub = open();
    const name = unique();
    const heard = new Collected<unknown>();
    const failing = (payload: unknown) => {
      heard.add(payload);
      throw new Error('at once');
    };
    const rejecting = async (payload: unknown) => {
      heard.add(payload);
      await Promise.reject(new Error('later'));
    };
    await pubsub.local.topic(name).subscribe(failing).ready;
    await pubsub.local.topic(name).subscribe(rejecting).ready;
    await pubsub.local.topic(name).publish({ n: 1 });
    await pubsub.local.topic(name).publish({ n: 2 });
    await heard.until(4);
    const errors = await pubsub.errors.until(4);
    expect(new Set(errors.map(({ error, topic }) => `${topic}: ${error}`))).toEqual(
      new Set([`${name}: Error: at once`, `${name}: Error: later`]),
    );
  });

  it('hears what is published right after it was subscribed', async () => {
    await using pubsub = open();
    for (let i = 0; i < 20; i++) {
      const heard = new Collected<unknown>();
      const topic = pubsub.local.topic(unique());
      topic.subscribe((payload) => heard.add(payload));
      void topic.publish({ n: 1 });
      expect(await heard.until(1)).toEqual([{ n: 1 }]);
    }
  });

  it('hears nothing after it was unsubscribed, by either spelling', async () => {
    await using pubsub = open();
    const base = unique();
    const heard = new Collected<string>();
    const gone = () => heard.add('gone');
    const stays = () => heard.add('stays');
    for (const handler of [gone, gone, stays]) await pubsub.local.topic(`${base}:a`).subscribe(handler).ready;
    await pubsub.local.topic(`${base}/a`).unsubscribe(gone);
    await pubsub.local.topic(`${base}.a`).publish();
    expect(await heard.until(1)).toEqual(['stays']);
  });
});

describe('a durable subscription', () => {
  it('gives each event to one of the processes, and again when the handler throws', async () => {
    await using one = open();
    await using two = open();
    const name = unique();
    const heard = new Collected<number>();
    let failures = 0;
    const handler = (payload: unknown, { delivery }: EventInfo) => {
      const { n } = payload as { n: number };
      if (n === 7 && delivery!.tries === 1) {
        failures += 1;
        throw new Error('once');
      }
      heard.add(n);
    };
    for (const pubsub of [one, two])
      await pubsub.local.topic(name).subscribe(handler, { durable: 'mailer' }).ready;
    const numbers = Array.from({ length: 20 }, (_, n) => n);
    await Promise.all(numbers.map((n) => one.local.topic(name).publish({ n })));
    expect([...(await heard.until(20))].sort((a, b) => a - b)).toEqual(numbers);
    expect(failures).toBe(1);
  });

  it('of one name on several topics, audiences, instances and scopes hears each where it belongs', async () => {
    await using acme = open();
    await using beta = open({ audience: 'beta' });
    await using north = open({ instance: 'north' });
    const name = unique();
    const heard = new Collected<string>();
    const places = [
      ['acme local', acme.local.topic(name)],
      ['acme local, other topic', acme.local.topic(`${name}.other`)],
      ['acme global', acme.global.topic(name)],
      ['beta local', beta.local.topic(name)],
      ['north local', north.local.topic(name)],
    ] as const;
    const durable = 'any name: 名 * > .';
    for (const [place, topic] of places) {
      await topic.subscribe((payload) => heard.add(`${place} <- ${(payload as { place: string }).place}`), {
        durable,
      }).ready;
    }
    for (const [place, topic] of places) await topic.publish({ place });
    expect([...(await heard.until(5))].sort()).toEqual(
      places.map(([place]) => `${place} <- ${place}`).sort(),
    );
  });

  it('is refused for an ephemeral topic, on which nothing is kept', async () => {
    await using pubsub = open();
    const { ready } = pubsub.global.topic('cursor:moves').subscribe(() => {}, { durable: 'moves' });
    await expect(ready).rejects.toMatchObject({
      code: 'request_invalid',
      detail: 'cursor:moves is ephemeral: it can be heard live only',
    });
    await expect(pubsub.local.topic('cursor:moves').publish()).rejects.toMatchObject({
      code: 'request_invalid',
    });
  });

  it('keeps what is published while nobody listens', async () => {
    const name = unique();
    await using pubsub = open();
    const heard = new Collected<unknown>();
    const first = pubsub.local.topic(name).subscribe((payload) => heard.add(payload), { durable: 'd' });
    await first.ready;
    await first.close();
    await pubsub.local.topic(name).publish({ n: 1 });
    pubsub.local.topic(name).subscribe((payload) => heard.add(payload), { durable: 'd' });
    expect(await heard.until(1)).toEqual([{ n: 1 }]);
  });
});

describe('before the connection is up', () => {
  it('calls wait for it', async () => {
    await using server = await startNats();
    await server.kill();
    await using pubsub = open({ servers: server.url });
    const heard = new Collected<unknown>();
    const subscription = pubsub.local.topic('early').subscribe((payload) => heard.add(payload));
    const published = pubsub.local.topic('early').publish({ n: 1 });
    await server.start();
    await prepareBus(server);
    await Promise.all([subscription.ready, published, pubsub.ready]);
    await pubsub.local.topic('early').publish({ n: 2 });
    await heard.until((payloads) => payloads.some((payload) => (payload as { n: number }).n === 2));
  });

  it('calls keep their order', async () => {
    await using pubsub = open();
    const topic = pubsub.global.topic(unique());
    const publish = () => topic.publish().then(({ position }) => position!.sequence);
    const early = Array.from({ length: 20 }, publish);
    const late = pubsub.ready.then(() => Promise.all(Array.from({ length: 20 }, publish)));
    const sequences = [...(await Promise.all(early)), ...(await late)];
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
  });

  it('calls wait for the registry, too', async () => {
    await using server = await startNats();
    await using pubsub = open({ servers: server.url });
    const published = pubsub.local.topic('early').publish({ n: 1 });
    await prepareBus(server);
    await expect(published).resolves.toMatchObject({ position: { sequence: 1 } });
  });

  it('calls are rejected when it does not come in time, saying why', async () => {
    const port = await freePort();
    await using pubsub = open({ servers: `127.0.0.1:${port}`, connectTimeout: 300 });
    const subscription = pubsub.local.topic('early').subscribe(() => {});
    const refused = {
      code: 'unavailable',
      detail: 'No connection to the event bus within 300 ms',
      cause: expect.any(Error),
    };
    await expect(pubsub.local.topic('early').publish()).rejects.toMatchObject(refused);
    await expect(subscription.ready).rejects.toMatchObject(refused);
    expect(await pubsub.errors.until(1)).toEqual([
      { error: expect.objectContaining({ code: 'unavailable' }), topic: 'early' },
    ]);
  });

  it('calls are rejected at once when it is closed', async () => {
    const port = await freePort();
    const pubsub = open({ servers: `127.0.0.1:${port}` });
    const published = expect(pubsub.local.topic('early').publish()).rejects.toMatchObject({
      code: 'unavailable',
    });
    const subscription = pubsub.local.topic('early').subscribe(() => {});
    const ready = expect(subscription.ready).rejects.toMatchObject({ code: 'unavailable' });
    await pubsub.close();
    await Promise.all([published, ready]);
    await expect(pubsub.ready).rejects.toMatchObject({ code: 'unavailable' });
    await expect(pubsub.local.topic('late').publish()).rejects.toMatchObject({ code: 'unavailable' });
  });
});

describe('while the connection is lost', () => {
  /** A server behind a link that can be cut, and the SDK on it. */
  async function linked(more: Partial<PubSubOptions> = {}) {
    const link = await startTcpProxy(nats.port);
    const pubsub = open({ servers: `nats://127.0.0.1:${link.port}`, ...more });
    const cut = async () => {
      link.cut();
      // It was on its way: once it is refused, the loss is known.
      await expect(pubsub.global.topic('gone').publish()).rejects.toMatchObject({ code: 'unavailable' });
    };
    return {
      link,
      pubsub,
      cut,
      [Symbol.asyncDispose]: async () => {
        await pubsub.close();
        await link[Symbol.asyncDispose]();
      },
    };
  }

  it('calls wait for it again, keep their order, and subscriptions go on', async () => {
    await using env = await linked();
    const { pubsub, link } = env;
    const name = unique();
    const heard = new Collected<string>();
    const note = (by: string) => (payload: unknown) => heard.add(`${by} ${(payload as { n: number }).n}`);
    await pubsub.global.topic(name).subscribe(note('live')).ready;
    await pubsub.global.topic(name).subscribe(note('durable'), { durable: 'd' }).ready;
    await env.cut();
    const receipts = Promise.all([1, 2, 3].map((n) => pubsub.global.topic(name).publish({ n })));
    const later = pubsub.global.topic(name).subscribe(note('later'));
    link.restore();
    const sequences = (await receipts).map(({ position }) => position!.sequence);
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    await later.ready;
    await pubsub.global.topic(name).publish({ n: 4 });
    const all = await heard.until((items) =>
      ['live', 'durable', 'later'].every((by) => items.includes(`${by} 4`)),
    );
    expect(all.filter((item) => item.startsWith('live'))).toEqual([1, 2, 3, 4].map((n) => `live ${n}`));
    expect(new Set(all.filter((item) => item.startsWith('durable'))).size).toBe(4);
  });

  it('calls are rejected when it does not come back in time, and are not stored later', async () => {
    await using env = await linked({ connectTimeout: 300 });
    const { pubsub, link } = env;
    const topic = pubsub.global.topic(unique());
    const heard = new Collected<unknown>();
    await pubsub.ready;
    await env.cut();
    const refused = { code: 'unavailable', detail: 'No connection to the event bus within 300 ms' };
    await expect(topic.publish({ n: 1 })).rejects.toMatchObject(refused);
    await expect(topic.subscribe(() => {}).ready).rejects.toMatchObject(refused);
    link.restore();
    await eventually(() => topic.publish({ n: 2 }).then(Boolean, () => false));
    await topic.subscribe((payload) => heard.add(payload), { durable: 'd' }).ready;
    expect(await heard.until(1)).toEqual([{ n: 2 }]);
  });

  it('calls that wait are rejected at once when it is closed', async () => {
    await using env = await linked();
    const { pubsub } = env;
    await pubsub.ready;
    await env.cut();
    const published = expect(pubsub.global.topic('a').publish()).rejects.toMatchObject({
      code: 'unavailable',
      detail: 'The connection was closed',
    });
    await Promise.all([published, pubsub.close()]);
  });

  it('what the server had not acknowledged is rejected, and stored once when it is published again', async () => {
    await using env = await linked();
    const { pubsub, link } = env;
    const topic = pubsub.global.topic(unique());
    await topic.publish({ n: 1 }, { id: unique() });
    link.stall();
    const options = { id: unique() };
    const first = topic.publish({ n: 2 }, options);
    link.reset();
    await expect(first).rejects.toMatchObject({ code: 'unavailable', retryAfter: 1 });
    link.restore();
    const { id, position } = await topic.publish({ n: 2 }, options);
    const again = await topic.publish({ n: 2 }, options);
    expect(again).toMatchObject({ id, position, duplicate: true });
  });
});

describe('publishes under way', () => {
  it('are bounded in number: one more is refused, and none is dropped', async () => {
    await using server = await startNats();
    await using pubsub = open({ servers: server.url, maxPending: { publishes: 3 } });
    const topic = pubsub.global.topic('many');
    const waiting = [1, 2, 3].map((n) => topic.publish({ n }));
    await expect(topic.publish({ n: 4 })).rejects.toMatchObject({
      code: 'rate_limited',
      retryAfter: 1,
      detail: '3 publishes of 21 bytes are under way: await some of them',
    });
    await prepareBus(server);
    const sequences = (await Promise.all(waiting)).map(({ position }) => position!.sequence);
    expect(sequences).toEqual([1, 2, 3]);
    await expect(topic.publish({ n: 4 })).resolves.toMatchObject({ position: { sequence: 4 } });
  });

  it('are bounded in bytes, and one alone may always go', async () => {
    await using pubsub = open({ maxPending: { bytes: 100 } });
    const topic = pubsub.global.topic(unique());
    const payload = { x: 'x'.repeat(60) };
    const first = topic.publish(payload);
    await expect(topic.publish(payload)).rejects.toMatchObject({ code: 'rate_limited' });
    await first;
    await topic.publish({ x: 'x'.repeat(200) });
  });
});

describe('closing', () => {
  it('waits for what is in work, and acknowledges it', async () => {
    const name = unique();
    const pubsub = open();
    const started = new Collected<unknown>();
    let finish = () => {};
    const handler = async (payload: unknown) => {
      started.add(payload);
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    };
    await pubsub.local.topic(name).subscribe(handler, { durable: 'd' }).ready;
    await pubsub.local.topic(name).publish({ n: 1 });
    await started.until(1);
    const closing = pubsub.close();
    finish();
    await closing;
    await using next = open();
    const again = new Collected<unknown>();
    await next.local.topic(name).subscribe((payload) => again.add(payload), { durable: 'd' }).ready;
    await next.local.topic(name).publish({ n: 2 });
    expect(await again.until(1)).toEqual([{ n: 2 }]);
  });

  it('does not wait for a server that is away', async () => {
    const server = await startNats();
    await prepareBus(server);
    const pubsub = open({ servers: server.url });
    await pubsub.local.topic('a').subscribe(() => {}).ready;
    await pubsub.local.topic('a').subscribe(() => {}, { durable: 'd' }).ready;
    await server[Symbol.asyncDispose]();
    await pubsub.close();
  });
});

describe('what the registry writes later', () => {
  it('is known without asking', async () => {
    await using pubsub = open();
    await pubsub.ready;
    const name = unique();
    await pubsub.local.topic(name).publish({ n: 'anything' });
    const schema = { type: 'object', properties: { n: { type: 'number' } } };
    await prepareBus(nats, { audiences: [], topics: [{ topic: name, audience: 'acme', schema }] });
    const refused = async () => {
      const result = await pubsub.local
        .topic(name)
        .publish({ n: 'anything' })
        .catch((error) => error.code);
      return result === 'payload_invalid';
    };
    await eventually(refused);
    const nc = await connectNats({ servers: nats.url });
    await new Kvm(nc).open(BUCKETS.topics).then((bucket) => bucket.delete(`acme.topic.-.${name}`));
    await nc.close();
    await eventually(async () => !(await refused()));
  });
});
