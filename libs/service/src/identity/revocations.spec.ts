import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import { BUCKETS, type Principal, type Revocation, revocationKey } from '@posthorn/contracts';
import { startNats, startTcpProxy, type TestNats } from '@posthorn/testing';
import { Health } from '../health.js';
import { createLogger } from '../logger.js';
import { connectNats, type NatsLink } from '../nats.js';
import { RevocationList, type Revoked } from './revocations.js';

const logger = createLogger({ app: 'spec', level: 'silent' });

const principal = (more: Partial<Principal> = {}): Principal => ({
  audience: 'acme',
  sub: 'alice',
  username: 'alice',
  role: 'user',
  tokenId: 'one',
  issuedAt: 100,
  ...more,
});

const until = (issuedBefore: number | null): string =>
  JSON.stringify({ issuedBefore, revokedAt: '2030-01-01T00:00:00Z' } satisfies Revocation);

/** Resolves with the next revocation that arrives. */
const next = (list: RevocationList): Promise<Revoked> =>
  new Promise((resolve) => {
    const stop = list.onRevoked((revoked) => {
      stop();
      resolve(revoked);
    });
  });

describe('a revocation list', () => {
  const opened: (() => PromiseLike<unknown>)[] = [];
  let server: TestNats;
  let link: NatsLink;

  const connect = async (url: string) => {
    const nats = await connectNats({ url, name: 'spec', logger, health: new Health() });
    opened.push(() => nats.close());
    return nats;
  };
  const load = async (nats = link, options: { attempts?: number; checkEvery?: number } = {}) => {
    const list = await RevocationList.load(nats, { logger, ...options });
    opened.push(() => list.close());
    return list;
  };
  const createBucket = () => new Kvm(link.connection).create(BUCKETS.revoked, { history: 1 });

  beforeEach(async () => {
    server = await startNats();
    opened.push(() => server[Symbol.asyncDispose]());
    link = await connect(server.url);
  });
  afterEach(async () => {
    for (const close of opened.splice(0).reverse()) await close();
  });

  it('knows what was in the bucket as soon as it is loaded', async () => {
    const bucket = await createBucket();
    for (let i = 0; i < 500; i++) await bucket.put(revocationKey.token('acme', `token ${i}`), until(null));
    const list = await load();
    expect(list.size).toBe(500);
    expect(list.isRevoked(principal({ tokenId: 'token 499' }))).toBe(true);
    expect(list.isRevoked(principal({ tokenId: 'token 500' }))).toBe(false);
  });

  it('loads an empty bucket, and hears what comes later', async () => {
    const bucket = await createBucket();
    const list = await load();
    expect(list.isRevoked(principal())).toBe(false);
    const revoked = next(list);
    await bucket.put(revocationKey.token('acme', 'one'), until(null));
    expect((await revoked).audience).toBe('acme');
    expect(list.isRevoked(principal())).toBe(true);
  });

  it.each<[string, string, Partial<Principal>, boolean]>([
    ['the token itself', revocationKey.token('acme', 'one'), {}, true],
    ['another token', revocationKey.token('acme', 'two'), {}, false],
    ['a token of that id in another audience', revocationKey.token('other', 'one'), {}, false],
    ['the user', revocationKey.user('acme', 'alice'), {}, true],
    [
      'the user, for a token issued at the very moment',
      revocationKey.user('acme', 'alice'),
      { issuedAt: 200 },
      true,
    ],
    ['the user, for a token issued later', revocationKey.user('acme', 'alice'), { issuedAt: 201 }, false],
    [
      'the user, for a token of unknown age',
      revocationKey.user('acme', 'alice'),
      { issuedAt: undefined },
      true,
    ],
    ['another user', revocationKey.user('acme', 'bob'), {}, false],
    ['a user, for a token without one', revocationKey.user('acme', 'alice'), { sub: null }, false],
    ['the audience', revocationKey.audience('acme'), { sub: null, tokenId: undefined }, true],
    ['the audience, for a token issued later', revocationKey.audience('acme'), { issuedAt: 300 }, false],
    ['another audience', revocationKey.audience('other'), {}, false],
  ])('judges %s', async (_, key, more, expected) => {
    const bucket = await createBucket();
    await bucket.put(key, until(key.includes('.token.') ? null : 200));
    const list = await load();
    expect(list.isRevoked(principal(more))).toBe(expected);
  });

  it('tells listeners whose tokens have ended', async () => {
    const bucket = await createBucket();
    const list = await load();
    const revoked = next(list);
    await bucket.put(revocationKey.user('acme', 'alice'), until(200));
    const { covers } = await revoked;
    expect(covers(principal())).toBe(true);
    expect(covers(principal({ issuedAt: 300 }))).toBe(false);
    expect(covers(principal({ sub: 'bob' }))).toBe(false);
  });

  it('is never weakened by a later entry, and forgets one that is deleted', async () => {
    const bucket = await createBucket();
    const list = await load();
    const key = revocationKey.user('acme', 'alice');
    await bucket.put(key, until(200));
    await bucket.put(key, until(50));
    const seen = next(list);
    await bucket.put(revocationKey.token('acme', 'two'), until(null));
    await seen;
    expect(list.isRevoked(principal())).toBe(true);
    await bucket.purge(key);
    const later = next(list);
    await bucket.put(revocationKey.token('acme', 'three'), until(null));
    await later;
    expect(list.isRevoked(principal())).toBe(false);
  });

  it('does not stumble over an entry that is none', async () => {
    const bucket = await createBucket();
    await bucket.put('acme.all', 'no JSON');
    await bucket.put('==.all', until(1));
    const list = await load();
    const revoked = next(list);
    await bucket.put(revocationKey.token('acme', 'one'), until(null));
    await revoked;
    expect(list.isRevoked(principal())).toBe(true);
  });

  it('waits for a bucket that is made later', async () => {
    const loading = load(link, { attempts: 8 });
    await createBucket();
    await expect(loading).resolves.toBeInstanceOf(RevocationList);
  });

  it('gives up when the bucket does not come, and says so', async () => {
    await expect(load(link, { attempts: 2 })).rejects.toMatchObject({
      code: 'unavailable',
      detail: 'The bucket ph-revoked cannot be read: stream not found',
    });
  });

  it('keeps its copy without NATS, and catches up when it is back', async () => {
    const bucket = await createBucket();
    await bucket.put(revocationKey.token('acme', 'one'), until(null));
    const proxy = await startTcpProxy(server.port);
    opened.push(() => proxy[Symbol.asyncDispose]());
    const list = await load(await connect(`nats://127.0.0.1:${proxy.port}`));
    proxy.cut();
    await bucket.put(revocationKey.token('acme', 'two'), until(null));
    expect(list.isRevoked(principal())).toBe(true);
    expect(list.isRevoked(principal({ tokenId: 'two' }))).toBe(false);
    const revoked = next(list);
    proxy.restore();
    await revoked;
    expect(list.isRevoked(principal({ tokenId: 'two' }))).toBe(true);
  });

  it('outlives the server, and hears what comes after its return at once', async () => {
    const bucket = await createBucket();
    await bucket.put(revocationKey.token('acme', 'one'), until(null));
    const list = await load(link, { checkEvery: 60_000 });
    const back = new Promise<void>((resolve) => {
      link.watch((connected) => connected && resolve());
    });
    await server.kill();
    expect(list.isRevoked(principal())).toBe(true);
    await server.start();
    await back;
    const revoked = next(list);
    await bucket.put(revocationKey.token('acme', 'two'), until(null));
    await revoked;
    expect(list.isRevoked(principal({ tokenId: 'two' }))).toBe(true);
  });

  it('takes nothing back when the bucket is lost, and follows the one that is made anew', async () => {
    const lost = await createBucket();
    for (const id of ['one', 'two', 'three']) await lost.put(revocationKey.token('acme', id), until(null));
    const list = await load(link, { checkEvery: 50 });
    await lost.destroy();
    const revoked = next(list);
    const anew = await createBucket();
    await anew.put(revocationKey.token('acme', 'four'), until(null));
    await revoked;
    expect(list.isRevoked(principal({ tokenId: 'four' }))).toBe(true);
    expect(list.isRevoked(principal({ tokenId: 'two' }))).toBe(true);
  });
});
