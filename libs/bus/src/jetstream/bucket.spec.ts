import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { type KV, Kvm } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { Collected, rawPublish, startNats, type TestNats } from '@posthorn/testing';
import { followBucket } from './bucket.js';

let nats: TestNats;
let nc: NatsConnection;
let owner: NatsConnection;

beforeEach(async () => {
  nats = await startNats();
  nc = await connect({ servers: nats.url, reconnectTimeWait: 50, maxReconnectAttempts: -1 });
  owner = await connect({ servers: nats.url, reconnectTimeWait: 50, maxReconnectAttempts: -1 });
});

afterEach(async () => {
  await Promise.all([nc.close(), owner.close()]);
  await nats[Symbol.asyncDispose]();
});

const create = (): Promise<KV> => new Kvm(owner).create('things', { history: 1 });
const text = new TextDecoder();

function follow(filter = '>') {
  const seen = new Collected<string>();
  const follower = followBucket(nc, 'things', filter, (key, value) => {
    seen.add(value ? `${key}=${text.decode(value)}` : `${key} gone`);
  });
  return { seen, follower };
}

describe('a follower of a bucket', () => {
  it('is ready with everything that the bucket holds', async () => {
    const bucket = await create();
    for (let i = 0; i < 300; i++) await bucket.put(`key${i}`, 'old');
    await bucket.put('key7', 'new');
    const { seen, follower } = follow();
    await follower.ready;
    expect(seen.items).toHaveLength(300);
    expect(seen.items).toContain('key7=new');
    follower.close();
  });

  it('hears of every change', async () => {
    const bucket = await create();
    const { seen, follower } = follow();
    await follower.ready;
    const changes: [change: () => Promise<unknown>, heard: string][] = [
      [() => bucket.put('a', '1'), 'a=1'],
      [() => bucket.put('a', '2'), 'a=2'],
      [() => bucket.delete('a'), 'a gone'],
      [() => bucket.put('a', '3'), 'a=3'],
      [() => bucket.purge('a'), 'a gone'],
    ];
    for (const [i, [change, heard]] of changes.entries()) {
      await change();
      expect((await seen.until(i + 1)).at(-1)).toBe(heard);
    }
    follower.close();
  });

  it('hears of the keys it asked for alone', async () => {
    const bucket = await create();
    await bucket.put('beta.a', '1');
    const { seen, follower } = follow('acme.>');
    await follower.ready;
    expect(seen.items).toEqual([]);
    await bucket.put('beta.b', '2');
    await bucket.put('acme.a', '3');
    expect(await seen.until(1)).toEqual(['acme.a=3']);
    follower.close();
  });

  it('waits for a bucket that does not exist yet', async () => {
    const { seen, follower } = follow();
    const bucket = await create();
    await bucket.put('a', '1');
    await seen.until(1);
    await follower.ready;
    follower.close();
  });

  it('keeps what it has when the bucket is deleted, and reads the one that takes its place from its beginning', async () => {
    const bucket = await create();
    for (const key of ['a', 'b', 'c']) await bucket.put(key, '1');
    const { seen, follower } = follow();
    await follower.ready;
    await bucket.destroy();
    const anew = await create();
    await anew.put('b', '2');
    expect(await seen.until(4)).toEqual(['a=1', 'b=1', 'c=1', 'b=2']);
    await anew.put('a', '3');
    expect(await seen.until(5)).toContain('a=3');
    follower.close();
  });

  it('goes on after the server was away, with what changed meanwhile', async () => {
    const bucket = await create();
    await bucket.put('a', '1');
    const { seen, follower } = follow();
    await follower.ready;
    await nats.kill();
    await nats.start();
    await owner.flush().catch(() => owner.flush());
    await bucket.put('a', '2');
    await seen.until((items) => items.includes('a=2'));
    follower.close();
  });

  it('leaves out what it cannot read', async () => {
    const bucket = await create();
    const seen = new Collected<unknown>();
    const follower = followBucket(nc, 'things', '>', (key, value) => {
      seen.add([key, value && JSON.parse(text.decode(value))]);
    });
    await follower.ready;
    await bucket.put('bad', 'not json');
    await rawPublish(nats, '$KV.things.header', 'NATS/1.0\r\nBad Name: x\r\n\r\n', '1');
    await bucket.put('good', '2');
    expect(await seen.until(2)).toEqual([
      ['header', 1],
      ['good', 2],
    ]);
    follower.close();
  });

  it('hears nothing once it is closed', async () => {
    const bucket = await create();
    const { seen, follower } = follow();
    await follower.ready;
    follower.close();
    await bucket.put('a', '1');
    await nc.flush();
    expect(seen.items).toEqual([]);
    const never = follow();
    never.follower.close();
  });
});
