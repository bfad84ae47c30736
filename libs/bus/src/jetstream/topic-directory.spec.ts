import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import { connect, type Msg, type NatsConnection } from '@nats-io/transport-node';
import {
  type AudienceRecord,
  audienceKey,
  BUCKETS,
  type LookupReply,
  type LookupRequest,
  ProblemError,
  parseTopic,
  REGISTRY_CALLS,
  type TopicRecord,
} from '@posthorn/contracts';
import { eventually, openBus, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import { Epochs } from './epochs.js';
import { registryLookup } from './registry-lookup.js';
import { TopicDirectory } from './topic-directory.js';

const times = { created_at: '2026-01-01T00:00:00Z', updated_at: '2026-01-01T00:00:00Z' };
const audience = (name: string): AudienceRecord => ({ id: name, name, ...times });
const topic = (name: string, more: Partial<TopicRecord> = {}): TopicRecord => {
  const { path } = parseTopic(name);
  return {
    id: name,
    topic: name,
    audience: 'acme',
    audienceId: 'acme',
    path,
    durable: true,
    ...times,
    ...more,
  };
};
const nothing: LookupReply = { audience: null, topic: null };

/** A directory whose registry answers from `replies`, and what it was asked. */
function asking(answer: (request: LookupRequest) => Promise<LookupReply> | LookupReply) {
  const asked: LookupRequest[] = [];
  const directory = new TopicDirectory(async (request) => {
    asked.push(request);
    return answer(request);
  });
  return { directory, asked };
}

describe('an audience', () => {
  it('that is not known is asked for once, however many want to know', async () => {
    const { directory, asked } = asking(() => ({ audience: audience('acme'), topic: null }));
    const records = await Promise.all([1, 2, 3].map(() => directory.audience('acme')));
    await directory.audience('acme');
    expect(records.map(({ name }) => name)).toEqual(['acme', 'acme', 'acme']);
    expect(directory.knowsAudience('acme')).toBe(true);
    expect(asked).toEqual([{ audience: 'acme' }]);
  });

  it('that does not exist is not asked for again at once', async () => {
    const { directory, asked } = asking(() => nothing);
    for (let i = 0; i < 3; i++) {
      await expect(directory.audience('nobody')).rejects.toMatchObject({ code: 'audience_not_found' });
    }
    expect(asked).toHaveLength(1);
    directory.rememberAudience(audience('nobody'));
    await expect(directory.audience('nobody')).resolves.toMatchObject({ name: 'nobody' });
  });

  it('is unavailable where the registry is, and asked for again', async () => {
    const { directory, asked } = asking(() => Promise.reject(new ProblemError('unavailable', 'away')));
    await expect(directory.audience('acme')).rejects.toMatchObject({ code: 'unavailable' });
    await expect(directory.audience('acme')).rejects.toMatchObject({ code: 'unavailable' });
    expect(asked).toHaveLength(2);
  });
});

describe('a topic', () => {
  const name = parseTopic('system/events');

  it('that is not known is asked for once, and its no is remembered', async () => {
    const { directory, asked } = asking(() => nothing);
    const registrations = [1, 2, 3].map(() => directory.registration(name, 'acme'));
    expect(await Promise.all(registrations)).toEqual([undefined, undefined, undefined]);
    expect(directory.registration(name, 'acme')).toBeUndefined();
    expect(asked).toEqual([{ audience: 'acme', path: '-.system.events' }]);
    directory.rememberTopic(topic('system/events'));
    expect(directory.registration(name, 'acme')).toMatchObject({ topic: 'system/events' });
  });

  it('of the catalogue needs no asking', () => {
    const { directory, asked } = asking(() => nothing);
    expect(directory.registration(parseTopic('community:join'), 'acme')).toBeUndefined();
    expect(directory.check(parseTopic('community:join'), 'acme', {})).not.toEqual([]);
    expect(asked).toEqual([]);
  });

  it('is as the copy says while the registry is away, which is not asked for each event', async () => {
    const { directory, asked } = asking(() => Promise.reject(new ProblemError('unavailable', 'away')));
    expect(await directory.registration(name, 'acme')).toBeUndefined();
    expect(directory.registration(name, 'acme')).toBeUndefined();
    expect(asked).toHaveLength(1);
  });

  it('is held against its schema', async () => {
    const schema = { type: 'object', required: ['n'] };
    const { directory } = asking(() => ({
      audience: audience('acme'),
      topic: topic('system/events', { schema }),
    }));
    await directory.registration(name, 'acme');
    expect(directory.check(name, 'acme', { n: 1 })).toEqual([]);
    expect(directory.check(name, 'acme', {})).toHaveLength(1);
    expect(directory.check(name, 'beta', {})).toEqual([]);
  });

  it('whose schema this version cannot read lets nothing pass', () => {
    const { directory } = asking(() => nothing);
    directory.rememberTopic(topic('system/events', { schema: { $ref: 'https://example.org/other' } }));
    expect(directory.check(name, 'acme', {})).toEqual([
      { path: '', message: 'cannot be checked by this version' },
    ]);
  });

  it('may be published on only in an audience that exists', async () => {
    const { directory } = asking(({ audience: asked }) =>
      asked === 'acme' ? { audience: audience('acme'), topic: null } : nothing,
    );
    await directory.admission('acme', name);
    expect(directory.admission('acme', name)).toBeUndefined();
    await expect(directory.admission('nobody', name)).rejects.toMatchObject({ code: 'audience_not_found' });
  });
});

describe('the copy of the bucket', () => {
  let nats: TestNats;
  let nc: NatsConnection;

  beforeAll(async () => {
    nats = await startNats();
    await prepareBus(nats, { audiences: ['acme', 'beta'], topics: [{ topic: 'a', audience: 'acme' }] });
    nc = await connect({ servers: nats.url });
  });

  afterAll(async () => {
    await nc.close();
    await nats[Symbol.asyncDispose]();
  });

  it('holds one audience, or all', async () => {
    for (const [wanted, known] of [
      ['acme', [true, false]],
      [null, [true, true]],
    ] as const) {
      const { directory } = asking(() => nothing);
      await directory.follow(nc, wanted);
      expect(['acme', 'beta'].map((name) => directory.knowsAudience(name))).toEqual(known);
      expect(directory.cached('acme', '-.a')).toMatchObject({ topic: 'a' });
      directory.close();
    }
  });

  it('takes back a no, forgets what is deleted, and keeps what it has when the bucket is lost', async () => {
    const { directory } = asking(() => nothing);
    await directory.follow(nc, null);
    await expect(directory.audience('late')).rejects.toMatchObject({ code: 'audience_not_found' });
    const bucket = await new Kvm(nc).open(BUCKETS.topics);
    await bucket.put(audienceKey('late'), JSON.stringify(audience('late')));
    await eventually(() => directory.knowsAudience('late'));
    await expect(directory.audience('late')).resolves.toMatchObject({ name: 'late' });
    await bucket.put(audienceKey('late'), 'not json');
    await bucket.delete(audienceKey('late'));
    await eventually(() => !directory.knowsAudience('late'));
    await bucket.destroy();
    await nc.flush();
    expect(directory.knowsAudience('acme')).toBe(true);
    directory.close();
  });

  it('of epochs says when the streams are ready, and notes a new one', async () => {
    const epochs = new Epochs();
    expect(() => epochs.of('global')).toThrow(ProblemError);
    await epochs.follow(nc);
    const before = epochs.of('global');
    expect(before).not.toBe('');
    const bucket = await new Kvm(nc).open(BUCKETS.streams);
    for (const bad of ['not json', '{"stream":"PH_GLOBAL","epoch":"NOT an epoch"}', '{}'])
      await bucket.put('PH_GLOBAL', bad);
    await bucket.put('PH_GLOBAL', JSON.stringify({ stream: 'PH_GLOBAL', epoch: 'abcz2' }));
    await eventually(() => epochs.of('global') !== before);
    expect(epochs.of('global')).toBe('abcz2');
    epochs.close();
  });
});

describe('the registry', () => {
  it("is asked in the words of Nest's NATS transport", async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    const requests: unknown[] = [];
    const answers = [
      { response: { audience: audience('new'), topic: null }, isDisposed: true },
      { err: { code: 'rate_limited', detail: 'Slower' }, isDisposed: true },
      { err: { status: 'error', message: 'Internal server error' }, isDisposed: true },
      'not json',
    ];
    process.nc.subscribe(REGISTRY_CALLS.lookup, {
      callback: (_, msg: Msg) => {
        requests.push(msg.json());
        const answer = answers[requests.length - 1];
        msg.respond(typeof answer === 'string' ? answer : JSON.stringify(answer));
      },
    });
    const lookup = registryLookup(process.nc);
    await expect(lookup({ audience: 'new' })).resolves.toMatchObject({ audience: { name: 'new' } });
    expect(requests).toEqual([
      { pattern: REGISTRY_CALLS.lookup, data: { audience: 'new' }, id: expect.any(String) },
    ]);
    await expect(lookup({ audience: 'new' })).rejects.toMatchObject({
      code: 'rate_limited',
      detail: 'Slower',
    });
    await expect(lookup({ audience: 'new' })).rejects.toMatchObject({ code: 'internal' });
    await expect(lookup({ audience: 'new' })).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('is unavailable at once where nobody answers', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    const started = performance.now();
    await expect(registryLookup(process.nc)({ audience: 'x' })).rejects.toMatchObject({
      code: 'unavailable',
    });
    expect(performance.now() - started).toBeLessThan(3_000);
  });
});
