import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { prepareBus, startNats, type TestNats } from '@posthorn/testing';
import { type Bus, type BusAnswer, busOf } from './bus-client.js';
import { connectPubSub, type PubSub } from './pubsub.js';

let nats: TestNats;
let pubsub: PubSub;
let bus: Bus;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, { topics: [{ topic: 'cursor/moves', audience: 'acme', durable: false }] });
  pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source: 'trytond' });
  bus = busOf(pubsub);
});

afterAll(async () => {
  await pubsub.close();
  await nats[Symbol.asyncDispose]();
});

const short = { timeout: 2_000, recent: 60_000 };

/** Publishes now and then until somebody who begins to listen about now has heard it. */
async function publishUntil<T>(heard: Promise<T>, topic: string, message: object): Promise<T> {
  let waiting = true;
  void heard.finally(() => {
    waiting = false;
  });
  while (waiting) {
    await bus.publish(topic, message);
    await Promise.race([heard, sleep(100)]);
  }
  return heard;
}

/** Everything from a place on, message by message. */
async function drain(channels: string[], last: string | null = null): Promise<BusAnswer[]> {
  const answers: BusAnswer[] = [];
  for (;;) {
    const answer = await bus.subscribe('acme', channels, last, short);
    if (!answer.message) return answers;
    answers.push(answer);
    last = answer.message.message_id!;
  }
}

describe('notify', () => {
  it('publishes the documented message where the parameters say', async () => {
    const asker = busOf(pubsub, { user: 7, client: 'my-client' });
    await bus.notify('To a user', 'a\nb', 3, 42);
    await bus.notify('To a client', null, undefined, 42, 'a-client');
    await asker.notify('To the caller');
    await busOf(pubsub, { user: 7 }).notify('To the current user', undefined, 0);
    const got = await drain(['user:42', 'client:a-client', 'client:my-client', 'user:7']);
    const kind = { type: 'notification', kind: 'notification', message_id: expect.any(String) };
    expect(got).toEqual([
      { channel: 'user:42', message: { ...kind, title: 'To a user', body: 'a\nb', priority: 3 } },
      { channel: 'client:a-client', message: { ...kind, title: 'To a client', body: null, priority: 1 } },
      { channel: 'client:my-client', message: { ...kind, title: 'To the caller', body: null, priority: 1 } },
      { channel: 'user:7', message: { ...kind, title: 'To the current user', body: null, priority: 0 } },
    ]);
  });

  it('refuses what is no notification, naming each parameter', async () => {
    await expect(bus.notify('a\nb', 5 as never, 9, 1)).rejects.toMatchObject({
      code: 'request_invalid',
      errors: [{ path: '/title' }, { path: '/body' }, { path: '/priority' }],
    });
    await expect(bus.notify('Nobody')).rejects.toMatchObject({ errors: [{ path: '/user' }] });
  });

  it('is stored once for one idempotency key', async () => {
    const options = { idempotencyKey: 'report 5' };
    const first = await bus.notify('Ready', null, 1, 43, null, options);
    const second = await bus.notify('Ready', null, 1, 43, null, options);
    expect(second).toMatchObject({ id: first.id, duplicate: true });
    expect(await drain(['user:43'])).toHaveLength(1);
  });
});

describe('Bus.subscribe', () => {
  it('waits for a message, which may come on any channel', async () => {
    const answer = bus.subscribe('acme', ['user:1', 'news/*'], null, { recent: 1 });
    expect(await publishUntil(answer, 'news/today', { n: 1 })).toEqual({
      channel: 'news/today',
      message: { n: 1, type: 'news/today', message_id: expect.any(String) },
    });
  });

  it('answers with nulls when nothing came in time, or it is told to end', async () => {
    expect(await bus.subscribe('acme', ['user:2'], null, { timeout: 50 })).toEqual({
      channel: null,
      message: null,
    });
    const hangUp = new AbortController();
    const answer = bus.subscribe('acme', ['user:2'], null, { signal: hangUp.signal });
    hangUp.abort();
    expect(await answer).toEqual({ channel: null, message: null });
  });

  it('leaves nothing at a signal that outlives it', async () => {
    const { signal } = new AbortController();
    for (const timeout of [1, 2, 3]) await bus.subscribe('acme', ['silent'], null, { timeout, signal });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('skips nothing and repeats nothing on busy channels', async () => {
    const channels = Array.from({ length: 20 }, (_, i) => `busy/${i}`);
    const got: unknown[] = [];
    const reading = (async () => {
      for (let last: string | null = null; got.length < 200; ) {
        const { channel, message } = await bus.subscribe('acme', channels, last, {
          recent: 60_000,
          timeout: 20_000,
        });
        if (!message) return;
        got.push(`${channel} ${message.n}`);
        last = message.message_id!;
      }
    })();
    for (let n = 0; n < 10; n++) await Promise.all(channels.map((channel) => bus.publish(channel, { n })));
    await reading;
    for (const channel of channels)
      expect(got.filter((each) => String(each).startsWith(`${channel} `))).toEqual(
        Array.from({ length: 10 }, (_, n) => `${channel} ${n}`),
      );
    expect(got).toHaveLength(200);
  }, 60_000);

  it('says so where the last message is unknown, and begins with recent ones', async () => {
    await bus.publish('user:3', { n: 1 });
    for (const last of ['nonsense', 'abcz1-5'])
      expect(await bus.subscribe('acme', ['user:3'], last, short)).toMatchObject({
        message: { n: 1 },
        recovered: false,
      });
    const nothing = await bus.subscribe('acme', ['user:nobody'], 'nonsense', short);
    expect(nothing).toEqual({ channel: null, message: null, recovered: false });
  });

  it('hears what is stored nowhere', async () => {
    const answer = bus.subscribe('acme', ['cursor/moves'], null, { timeout: 20_000 });
    const heard = await publishUntil(answer, 'cursor/moves', { x: 1 });
    expect(heard).toMatchObject({ channel: 'cursor/moves', message: { x: 1 } });
  });

  it('refuses another database, and a call without channels', async () => {
    await expect(bus.subscribe('globex', ['user:1'])).rejects.toMatchObject({ code: 'request_invalid' });
    await expect(bus.subscribe('acme', [])).rejects.toMatchObject({ code: 'request_invalid' });
  });

  it('rejects when the connection is closed', async () => {
    const other = connectPubSub({ servers: nats.url, audience: 'acme', source: 'other' });
    await other.ready;
    const answer = busOf(other).subscribe('acme', ['user:4']);
    await sleep(50);
    await Promise.all([other.close(), expect(answer).rejects.toMatchObject({ code: 'unavailable' })]);
  });

  it('makes responses as clients need them', () => {
    expect(bus.createResponse('user:1', { a: 1 })).toEqual({
      channel: 'user:1',
      message: { a: 1, type: 'user:1' },
    });
    expect(bus.createResponse('user:1', { type: 't' })).toEqual({
      channel: 'user:1',
      message: { type: 't' },
    });
  });
});
