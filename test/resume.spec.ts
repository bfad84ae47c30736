/** Resuming from a position, on whichever gateway (docs/protocols/courier.md, "WebSocket"). */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { STREAMS } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import { CourierSocket, type Frame } from './support/courier-client.js';
import { createTenant, type Tenant } from './support/tenant.js';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startCluster({
    replicas: { gateway: 2 },
    links: true,
    env: { PUBLISH_RATE: '100000', PUBLISH_BURST: '100000' },
  });
}, 90_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

let tenants = 0;
const tenant = () => createTenant(cluster, `resume-${++tenants}`);

/** A socket at one of the gateways. */
async function socketAt(gateway: 0 | 1, { token }: Tenant, sub = 'ann', claims = {}): Promise<CourierSocket> {
  return CourierSocket.open(cluster.gatewayUrls[gateway]!, await token(sub, claims));
}

/** Publishes messages {n: from} … {n: to} to a topic, all of them stored when this resolves. */
async function publish(
  { service }: Tenant,
  topic: string,
  from: number,
  to: number,
  fill = '',
): Promise<void> {
  for (let n = from; n <= to; n++) {
    const message = fill ? { n, fill } : { n };
    const { status } = await service('POST', '/v1/hook', { topic, action: 'publish', message });
    if (status !== 200) throw new Error(`POST /v1/hook answered ${status}`);
  }
}

/** Drops what the stream holds before a position. */
async function purgeBefore(position: string): Promise<void> {
  const nc = await connect({ servers: cluster.natsUrl });
  const jsm = await jetstreamManager(nc);
  await jsm.streams.purge(STREAMS.global.name, { seq: Number(position.split('-')[1]) });
  await nc.close();
}

const numbers = (frames: readonly Frame[], action = 'message') =>
  frames.filter((frame) => frame.action === action).map(({ message }) => (message as { n: number }).n);

const upTo = (n: number, from = 1) => Array.from({ length: n - from + 1 }, (_, i) => i + from);

describe('resuming a topic', () => {
  it('continues on another gateway exactly where it stopped, from the stream, then live', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    await first.subscribe('news');
    await publish(acme, 'news', 1, 3);
    const [, , last] = await first.count('message', 3);
    await first[Symbol.asyncDispose]();
    await publish(acme, 'news', 4, 60);

    await using second = await socketAt(1, acme);
    const since = last!.position as string;
    const subscribed = await second.subscribe('news', since);
    expect(subscribed).toMatchObject({ position: since, recovered: true });
    await publish(acme, 'news', 61, 63);
    await second.count('message', 60);
    await second.settle();
    expect(numbers(second.frames)).toEqual(upTo(63, 4));
  });

  it('is served by a gateway that has the topic in memory, with the same events', async () => {
    const acme = await tenant();
    await using witness = await socketAt(0, acme);
    const { position } = await witness.subscribe('news');
    await publish(acme, 'news', 1, 5);
    await witness.count('message', 5);

    await using back = await socketAt(0, acme);
    expect(await back.subscribe('news', position as string)).toMatchObject({ recovered: true });
    await back.count('message', 5);
    await publish(acme, 'news', 6, 6);
    await back.count('message', 6);
    expect(numbers(back.frames)).toEqual(upTo(6));
    const messages = ({ frames }: CourierSocket) => frames.filter(({ action }) => action === 'message');
    await witness.count('message', 6);
    expect(messages(back)).toEqual(messages(witness));
  });

  it('misses nothing and doubles nothing while events go on being published', async () => {
    const acme = await tenant();
    const publisher = await socketAt(0, acme, 'publisher');
    const total = 1_500;
    let done = false;
    const publishing = (async () => {
      for (let n = 1; n <= total; n++) {
        publisher.send({
          action: 'publish',
          topic: 'busy',
          message: { n },
          ...(n % 50 === 0 ? { ref: `${n}` } : {}),
        });
        if (n % 50 === 0) await publisher.next('published', `${n}`);
      }
      done = true;
    })();

    const follow = async (gateway: 0 | 1): Promise<number[]> => {
      const seen: number[] = [];
      let since: string | undefined;
      for (let round = 0; !done || seen.at(-1) !== total; round++) {
        await using socket = await socketAt(((gateway + round) % 2) as 0 | 1, acme);
        const subscribed = await socket.subscribe('busy', since);
        since ??= subscribed.position as string;
        const before = socket.frames.length;
        // Drops in the middle of whatever it is given: ever later, so that it gets to the end.
        await socket
          .find(({ message }) => (message as { n: number } | undefined)?.n === total, before, 20 + 30 * round)
          .catch(() => {});
        const messages = socket.frames.filter(({ action }) => action === 'message');
        seen.push(...numbers(messages));
        since = (messages.at(-1)?.position as string | undefined) ?? since;
      }
      return seen;
    };
    const followers = await Promise.all([follow(0), follow(1), follow(0), follow(1)]);
    await publishing;
    await publisher[Symbol.asyncDispose]();
    for (const seen of followers) expect(seen).toEqual(upTo(total, seen[0]));
  }, 60_000);

  it('is given long history at the pace at which its peer reads', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('long');
    await publish(acme, 'long', 1, 120, 'x'.repeat(50_000));

    await using slow = await socketAt(1, acme);
    await slow.subscribe('long', position as string);
    slow.socket.pause();
    await publish(acme, 'long', 121, 125);
    slow.socket.resume();
    await slow.count('message', 125);
    expect(slow.closed).toBeUndefined();
    expect(numbers(slow.frames)).toEqual(upTo(125));
  }, 60_000);

  it('is given many histories at once, also where its peer reads nothing for longer than one is kept', async () => {
    const acme = await tenant();
    const topics = ['one', 'two', 'three', 'four', 'five', 'six'];
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('one');
    for (const [i, topic] of topics.entries()) {
      await publish(acme, topic, 100 * i + 1, 100 * i + 100, 'x'.repeat(50_000));
    }
    await using slow = await socketAt(1, acme);
    slow.socket.pause();
    for (const topic of topics) slow.send({ action: 'subscribe', topic, since: position });
    // No event says that a reading was given up.
    await sleep(3_000);
    slow.socket.resume();
    await slow.count('message', 600);
    await slow.settle();
    for (const [i, topic] of topics.entries()) {
      const frames = slow.frames.filter((frame) => frame.topic === topic);
      expect(numbers(frames)).toEqual(upTo(100 * i + 100, 100 * i + 1));
    }
  }, 60_000);

  it('goes on where its gateway lost NATS in the middle of history', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('long');
    await publish(acme, 'long', 1, 400, 'x'.repeat(10_000));
    const link = cluster.natsLink(cluster.apps.gateway[1]!);

    await using socket = await socketAt(1, acme);
    await socket.subscribe('long', position as string);
    await socket.count('message', 1);
    socket.socket.pause();
    link.cut();
    await publish(acme, 'long', 401, 405).finally(() => link.restore());
    socket.socket.resume();
    await socket.count('message', 405);
    expect(numbers(socket.frames)).toEqual(upTo(405));
  }, 60_000);

  it('is told to subscribe again where its history was dropped before it had read it', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('long');
    await publish(acme, 'long', 1, 1_000, 'x'.repeat(10_000));
    const last = (await first.count('message', 1_000)).at(-1)!.position as string;

    await using slow = await socketAt(1, acme);
    await slow.subscribe('long', position as string);
    await slow.count('message', 1);
    slow.socket.pause();
    await purgeBefore(last);
    slow.socket.resume();
    expect(await slow.next('error')).toMatchObject({ code: 'unavailable' });
    expect(await slow.next('unsubscribed')).toEqual({ action: 'unsubscribed', topic: 'long' });
    const had = slow.frames.filter(({ action }) => action === 'message');
    expect(numbers(had)).toEqual(upTo(had.length));
    expect(had.length).toBeLessThan(1_000);
    const again = await slow.subscribe('long', had.at(-1)!.position as string);
    expect(again).toMatchObject({ recovered: false });
    await slow.find(({ position: place }) => place === last, had.length);
  }, 60_000);

  it('begins with the oldest event that is kept, and says so, where the position is of another stream', async () => {
    const acme = await tenant();
    await publish(acme, 'news', 1, 3);
    await using socket = await socketAt(0, acme);
    const subscribed = await socket.subscribe('news', 'elsewherez1-7');
    expect(subscribed).toMatchObject({
      recovered: false,
      position: expect.stringMatching(/^[0-9a-z]+-\d+$/),
    });
    await socket.count('message', 3);
    expect(numbers(socket.frames)).toEqual([1, 2, 3]);

    const [epoch] = (subscribed.position as string).split('-');
    await using ahead = await socketAt(0, acme);
    expect(await ahead.subscribe('news', `${epoch}-999999999`)).toMatchObject({ recovered: false });
    await ahead.count('message', 3);
  });

  it('says so where what it missed was dropped by the stream', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('news');
    await publish(acme, 'news', 1, 4);
    const third = (await first.count('message', 4))[2]!;
    await purgeBefore(third.position as string);

    await using second = await socketAt(1, acme);
    expect(await second.subscribe('news', position as string)).toMatchObject({ recovered: false });
    await second.count('message', 2);
    expect(numbers(second.frames)).toEqual([3, 4]);
  });

  it('takes no cursor of which a topic lies beyond the end of the stream', async () => {
    const acme = await tenant();
    await using witness = await socketAt(0, acme, 'svc', { role: 'service' });
    const { position } = await witness.subscribe('news');
    await publish(acme, 'news', 1, 2);
    for (const [gateway, target] of [
      [0, 'news'],
      [1, 'news'],
      [1, '>'],
    ] as const) {
      await using socket = await socketAt(gateway, acme, 'svc', { role: 'service' });
      const subscribed = await socket.subscribe(target, `${position}~zzzzzz.-.news`);
      expect(subscribed).toMatchObject({ recovered: false });
      await socket.count('message', 2);
    }
  });

  it('refuses what is no position', async () => {
    const acme = await tenant();
    await using socket = await socketAt(0, acme);
    socket.send({ action: 'subscribe', topic: 'news', since: 'yesterday', ref: 'r' });
    expect(await socket.next('error', 'r')).toMatchObject({
      code: 'request_invalid',
      errors: [{ path: '/since', message: expect.any(String) }],
    });
    // Nothing was subscribed by that.
    expect(await socket.subscribe('news')).not.toHaveProperty('recovered');
  });

  it('changes nothing where it is subscribed already, and says whether that reaches back', async () => {
    const acme = await tenant();
    await using socket = await socketAt(0, acme);
    const { position } = await socket.subscribe('news');
    await publish(acme, 'news', 1, 1);
    const [first] = await socket.count('message', 1);
    const again = await socket.subscribe('news', first!.position as string);
    expect(again).toMatchObject({ position, recovered: true });
    const [epoch] = (position as string).split('-');
    expect(await socket.subscribe('news', `${epoch}-0`)).toMatchObject({ position, recovered: false });
    await socket.settle();
    expect(numbers(socket.frames)).toEqual([1]);
  });

  it('ends when it is unsubscribed from, in the middle of history too', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    const { position } = await first.subscribe('long');
    await publish(acme, 'long', 1, 100, 'x'.repeat(50_000));
    await using socket = await socketAt(1, acme);
    socket.send({ action: 'subscribe', topic: 'long', since: position });
    socket.send({ action: 'unsubscribe', topic: 'long' });
    await socket.next('unsubscribed');
    const count = numbers(socket.frames).length;
    await socket.settle();
    expect(numbers(socket.frames)).toHaveLength(count);
    expect(count).toBeLessThan(100);
  });
});

describe('resuming a pattern', () => {
  it('gives what its topics missed, each event once, also where a topic is resumed beside it', async () => {
    const acme = await tenant();
    const service = { role: 'service' };
    await using first = await socketAt(0, acme, 'svc', service);
    const { position } = await first.subscribe('feed.>');
    await publish(acme, 'feed/a', 1, 3);
    await publish(acme, 'feed/b', 4, 6);
    await publish(acme, 'other', 7, 7);

    await using second = await socketAt(1, acme, 'svc', service);
    const [pattern, topic] = await Promise.all([
      second.subscribe('feed.>', position as string),
      second.subscribe('feed/b', position as string),
    ]);
    expect([pattern, topic]).toMatchObject([{ recovered: true }, { recovered: true }]);
    await second.count('message', 6);
    await publish(acme, 'feed/a', 8, 8);
    await second.count('message', 7);
    await second.settle();
    expect(numbers(second.frames).toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 8]);
  });

  it('ends with a topic that it left events to and that was unsubscribed before they were delivered', async () => {
    const acme = await tenant();
    const service = { role: 'service' };
    await using first = await socketAt(0, acme, 'svc', service);
    const { position } = await first.subscribe('feed.>');
    await publish(acme, 'feed/a', 1, 400, 'x'.repeat(50_000));
    await using second = await socketAt(1, acme, 'svc', service);
    const since = position as string;
    second.socket.pause();
    for (const topic of ['feed/a', 'feed.>']) second.send({ action: 'subscribe', topic, since });
    // No event says that the pattern has left what it missed to the topic.
    await sleep(1_000);
    second.send({ action: 'unsubscribe', topic: 'feed/a' });
    second.socket.resume();
    expect(await second.next('error')).toMatchObject({ code: 'unavailable' });
    const ended = ({ action, topic }: Frame) => action === 'unsubscribed' && topic === 'feed.>';
    await second.find(ended);
    const { length } = numbers(second.frames);
    expect(numbers(second.frames)).toEqual(upTo(length));
    expect(length).toBeLessThan(400);
    const again = await second.subscribe('feed.>', since);
    expect(again).toMatchObject({ recovered: true });
    await second.count('message', length + 400);
  }, 30_000);

  it('gives a user nothing of what is reserved for others', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme, 'ann', { permissions: { subscribe: ['>'], publish: ['>'] } });
    const { position } = await first.subscribe('>');
    await publish(acme, 'user:bob', 1, 1);
    await publish(acme, 'news', 2, 2);
    await using second = await socketAt(1, acme, 'ann', {
      permissions: { subscribe: ['>'], publish: ['>'] },
    });
    await second.subscribe('>', position as string);
    await second.count('message', 1);
    const { position: place } = await second.settle();
    expect(numbers(second.frames)).toEqual([2]);
    expect(place).not.toMatch(/bob|user/);
  });
});

describe('broadcasts', () => {
  it('that were missed come back to whoever subscribes to them with a position, each once', async () => {
    const acme = await tenant();
    const broadcast = async (n: number) => {
      const { status } = await acme.service('POST', '/v1/hook', { action: 'broadcast', message: { n } });
      expect(status).toBe(200);
    };
    await using first = await socketAt(0, acme);
    await broadcast(1);
    const [one] = await first.count('broadcast', 1);
    await first[Symbol.asyncDispose]();
    await broadcast(2);
    await broadcast(3);

    await using second = await socketAt(1, acme);
    await broadcast(4);
    await second.count('broadcast', 1);
    expect(await second.subscribe('__broadcast__', one!.position as string)).toMatchObject({
      recovered: true,
    });
    await second.count('broadcast', 3);
    await broadcast(5);
    await second.count('broadcast', 4);
    second.send({ action: 'unsubscribe', topic: '__broadcast__' });
    await second.next('unsubscribed');
    await broadcast(6);
    await second.count('broadcast', 5);
    expect(numbers(second.frames, 'broadcast')).toEqual([4, 2, 3, 5, 6]);
  });

  it('come whole to whoever unsubscribes and subscribes to them again in the middle of what was missed', async () => {
    const acme = await tenant();
    const fill = 'x'.repeat(50_000);
    const broadcast = (n: number) =>
      acme.service('POST', '/v1/hook', { action: 'broadcast', message: { n, fill } });
    await using first = await socketAt(0, acme);
    const { position: since } = await first.subscribe('news');
    for (let n = 1; n <= 300; n++) await broadcast(n);
    await using second = await socketAt(1, acme);
    await broadcast(301);
    await second.count('broadcast', 1);
    second.socket.pause();
    second.send({ action: 'subscribe', topic: '__broadcast__', since });
    second.send({ action: 'unsubscribe', topic: '__broadcast__' });
    second.send({ action: 'subscribe', topic: '__broadcast__', since, ref: 'again' });
    second.socket.resume();
    expect(await second.next('subscribed', 'again')).toMatchObject({ recovered: true });
    await second.count('broadcast', 301);
    await second.settle();
    expect(numbers(second.frames, 'broadcast')).toEqual([301, ...upTo(300)]);
  }, 60_000);
});

describe('pong', () => {
  it('brings a position from which each of the topics can be resumed, so that a quiet one does not grow old', async () => {
    const acme = await tenant();
    await using first = await socketAt(0, acme);
    await first.subscribe('quiet');
    await first.subscribe('busy');
    await publish(acme, 'quiet', 1, 1);
    await publish(acme, 'busy', 2, 40);
    await first.count('message', 40);
    const { position } = await first.settle();
    await publish(acme, 'quiet', 41, 41);
    await publish(acme, 'busy', 42, 42);

    for (const gateway of [0, 1] as const) {
      await using second = await socketAt(gateway, acme);
      for (const topic of ['quiet', 'busy']) {
        expect(await second.subscribe(topic, position as string)).toMatchObject({ recovered: true });
      }
      await second.count('message', 2);
      await second.settle();
      expect(numbers(second.frames)).toEqual([41, 42]);
    }
  });

  it('loses nothing and doubles nothing for whoever resumes from the last one, at any moment', async () => {
    const acme = await tenant();
    await using publisher = await socketAt(0, acme, 'publisher');
    await using first = await socketAt(1, acme);
    const topics = ['a', 'b', 'c'];
    for (const topic of topics) await first.subscribe(topic);
    for (let n = 1; n <= 300; n++) {
      publisher.send({ action: 'publish', topic: topics[n % 3], message: { n } });
      if (n % 10 === 0) first.send({ action: 'ping' });
    }
    await first.count('message', 300);
    await first.count('pong', 30);
    const { frames } = first;
    const pongs = frames.flatMap(({ action, position }, i) => (action === 'pong' && position ? [i] : []));
    expect(pongs.length).toBeGreaterThan(0);
    for (const i of [pongs[0]!, pongs[pongs.length >> 1]!, pongs.at(-1)!]) {
      const had = numbers(frames.slice(0, i));
      await using second = await socketAt(0, acme);
      for (const topic of topics) await second.subscribe(topic, frames[i]!.position as string);
      const rest = upTo(300).filter((n) => !had.includes(n));
      await second.count('message', rest.length);
      await second.settle();
      expect(numbers(second.frames).toSorted((a, b) => a - b)).toEqual(rest);
    }
  }, 30_000);
});

describe('ephemeral topics', () => {
  it('are delivered live, have no position, and cannot be resumed', async () => {
    const acme = await tenant();
    await acme.service('POST', '/v1/topic', { topic: 'typing', durable: false });
    await using ann = await socketAt(0, acme);
    await using bob = await socketAt(1, acme, 'bob');
    await using all = await socketAt(1, acme, 'svc', { role: 'service' });
    expect(await ann.subscribe('typing')).not.toHaveProperty('position');
    await bob.subscribe('typing');
    await all.subscribe('>');
    ann.send({ action: 'publish', topic: 'typing', message: { n: 1 }, id: 'mine', ref: 'p' });
    const published = await ann.next('published', 'p');
    expect(published).toEqual({ action: 'published', topic: 'typing', id: 'mine', ref: 'p' });
    for (const socket of [ann, bob, all]) {
      expect(await socket.next('message')).toEqual({
        action: 'message',
        topic: 'typing',
        id: 'mine',
        message: { n: 1 },
      });
    }
    const hook = await acme.service('POST', '/v1/hook', {
      topic: 'typing',
      action: 'publish',
      message: { n: 2 },
    });
    expect([hook.status, hook.headers.get('posthorn-position')]).toEqual([200, null]);
    await bob.count('message', 2);

    const { position } = await bob.settle();
    await using late = await socketAt(0, acme);
    const subscribed = await late.subscribe('typing', position as string);
    expect(subscribed).toMatchObject({ recovered: false });
    expect(subscribed).not.toHaveProperty('position');
    await late.settle();
    expect(numbers(late.frames)).toEqual([]);
  });
});
