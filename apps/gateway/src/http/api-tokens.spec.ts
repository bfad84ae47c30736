import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { Kvm } from '@nats-io/kv';
import {
  BUCKETS,
  type CheckTokenReply,
  type CheckTokenRequest,
  ProblemError,
  revocationKey,
  TOKEN_CALLS,
} from '@posthorn/contracts';
import {
  connectNats,
  createLogger,
  Health,
  Metrics,
  type NatsLink,
  RevocationList,
  RpcClient,
} from '@posthorn/service';
import { startNats, type TestNats } from '@posthorn/testing';
import type { GatewayCore } from '../core.js';
import { GatewayMetrics } from '../metrics.js';
import { ApiTokens, newSecret, writtenToken } from './api-tokens.js';

const logger = createLogger({ app: 'spec', level: 'silent' });

let nats: TestNats;
let link: NatsLink;
let revocations: RevocationList;
let tokens: ApiTokens;
let clock: ReturnType<typeof jest.spyOn>;
let later = 0;

/** What auth knows by a token's id, and what it was asked. */
const known = new Map<string, CheckTokenReply & { readonly hash: string }>();
const asked: CheckTokenRequest[] = [];
let auth: { unsubscribe(): void } | undefined;

/** An auth app that answers one call, as Nest writes answers. */
function startAuth(): void {
  auth = link.connection.subscribe(TOKEN_CALLS.check, {
    callback: (_, message) => {
      const { data, id } = message.json<{ data: CheckTokenRequest; id: string }>();
      asked.push(data);
      const { hash, ...reply } = known.get(data.id) ?? {};
      const answer =
        hash === data.hash ? { response: reply } : { err: { code: 'unauthorized', detail: 'unknown' } };
      message.respond(JSON.stringify({ ...answer, isDisposed: true, id }));
    },
  });
}

async function stopAuth(): Promise<void> {
  auth?.unsubscribe();
  auth = undefined;
  await link.connection.flush();
}

/** A token that auth knows. */
function issued(more: Partial<CheckTokenReply> = {}): { readonly id: string; readonly token: string } {
  const id = randomUUID();
  const { secret, hash } = newSecret();
  known.set(id, { audience: 'acme', scopes: ['publish:event'], expiresAt: null, hash, ...more });
  return { id, token: writtenToken(id, secret) };
}

const guessed = () => writtenToken(randomUUID(), newSecret().secret);

beforeAll(async () => {
  nats = await startNats();
  link = await connectNats({ url: nats.url, name: 'spec', logger, health: new Health() });
  await new Kvm(link.connection).create(BUCKETS.revoked, { history: 1 });
  revocations = await RevocationList.load(link, { logger });
  // It stands still but for what a test adds: no bucket refills while a busy machine gets through the tries.
  const begin = performance.now();
  clock = jest.spyOn(performance, 'now').mockImplementation(() => begin + later);
});
afterAll(async () => {
  clock.mockRestore();
  await revocations.close();
  await link.close();
  await nats[Symbol.asyncDispose]();
});
beforeEach(() => {
  const metrics = new GatewayMetrics(new Metrics('gateway'), () => 0, 0);
  tokens = new ApiTokens({ rpc: new RpcClient(link), revocations, metrics } as unknown as GatewayCore);
  startAuth();
});
afterEach(async () => {
  await stopAuth();
  asked.length = 0;
  known.clear();
});

describe('an API token', () => {
  it('says who calls, bare or after Bearer, and its secret goes no further', async () => {
    const { id, token } = issued();
    const caller = { audience: 'acme', tokenId: id, scopes: ['publish:event'] };
    for (const header of [token, `Bearer ${token}`, `bearer  ${token} `]) {
      expect(await tokens.verify(header)).toEqual(caller);
    }
    expect(token).toMatch(/^ph_[0-9a-f]{32}_[0-9a-f]{64}$/);
    expect(JSON.stringify(asked)).not.toContain(token.slice(-64));
  });

  it('is told apart from none', async () => {
    await expect(tokens.verify(undefined)).rejects.toThrow('Authorization: <API token> is required');
    await expect(tokens.verify('ph_x')).rejects.toThrow('The Authorization is not an API token');
  });

  it.each([
    ['nothing', () => undefined],
    ['a JWT', () => 'Bearer a.b.c'],
    ['another scheme', (token: string) => `Basic ${token}`],
    ['a character more', (token: string) => `${token}0`],
    ['a character less', (token: string) => token.slice(0, -1)],
    ['capitals', (token: string) => token.toUpperCase()],
    ['a line of its own', (token: string) => `x\n${token}`],
  ])('is not asked for where there is %s', async (_, header) => {
    await expect(tokens.verify(header(issued().token))).rejects.toMatchObject({ code: 'unauthorized' });
    expect(asked).toEqual([]);
  });

  it('is asked for once a minute, however many use it at once', async () => {
    const { token } = issued();
    await Promise.all(Array.from({ length: 100 }, () => tokens.verify(token)));
    later += 59_000;
    await tokens.verify(token);
    expect(asked).toHaveLength(1);
    later += 2_000;
    await Promise.all([tokens.verify(token), tokens.verify(token)]);
    expect(asked).toHaveLength(2);
  });

  it('is refused as soon as its revocation arrives, though it is remembered and auth is away', async () => {
    const { id, token } = issued();
    await tokens.verify(token);
    await stopAuth();
    const told = new Promise<void>((resolve) => revocations.onRevoked(() => resolve()));
    const bucket = await new Kvm(link.connection).open(BUCKETS.revoked);
    const revocation = { issuedBefore: null, revokedAt: new Date().toISOString() };
    await bucket.put(revocationKey.token('acme', id), JSON.stringify(revocation));
    await told;
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'unauthorized', detail: /revoked/ });
  });

  it('is refused when its time is over, though it is remembered', async () => {
    const { token } = issued({ expiresAt: Date.now() / 1_000 + 0.3 });
    await tokens.verify(token);
    await new Promise((resolve) => setTimeout(resolve, 320));
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'token_expired' });
  });

  it('is refused when auth, asked again, does not know it any more', async () => {
    const { id, token } = issued();
    await tokens.verify(token);
    known.delete(id);
    later += 61_000;
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'unauthorized' });
  });

  it('goes on while auth is away where it is remembered, and waits where it is not', async () => {
    const [old, fresh] = [issued(), issued()];
    await tokens.verify(old.token);
    await stopAuth();
    later += 3_600_000;
    await expect(tokens.verify(old.token)).resolves.toMatchObject({ tokenId: old.id });
    await expect(tokens.verify(fresh.token)).rejects.toMatchObject({ code: 'unavailable' });
    startAuth();
    await expect(tokens.verify(fresh.token)).resolves.toMatchObject({ tokenId: fresh.id });
    later += 11_000;
    await tokens.verify(old.token);
    expect(asked.map(({ id }) => id)).toEqual([old.id, fresh.id, old.id]);
  });
});

describe('tokens that nobody issued', () => {
  it('are asked for once in ten seconds', async () => {
    const token = guessed();
    for (let i = 0; i < 5; i++) {
      await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'unauthorized' });
    }
    expect(asked).toHaveLength(1);
    later += 11_000;
    await expect(tokens.verify(token)).rejects.toThrow(ProblemError);
    expect(asked).toHaveLength(2);
  });

  it('reach auth only so fast from one address, and leave other addresses and known tokens alone', async () => {
    const { id, token } = issued();
    await tokens.verify(token, '192.0.2.1');
    const tries = Array.from({ length: 200 }, () => tokens.verify(guessed(), '192.0.2.1'));
    const codes = (await Promise.allSettled(tries)).map((outcome) =>
      outcome.status === 'rejected' ? (outcome.reason as ProblemError).code : 'taken',
    );
    expect(codes.filter((code) => code === 'unauthorized').length).toBeLessThan(60);
    expect(codes.filter((code) => code === 'rate_limited').length).toBeGreaterThan(140);
    await expect(tokens.verify(guessed(), '192.0.2.1')).rejects.toMatchObject({
      retryAfter: expect.any(Number),
    });
    later += 61_000;
    await expect(tokens.verify(token, '192.0.2.1')).resolves.toMatchObject({ tokenId: id });
    await expect(tokens.verify(issued().token, '192.0.2.2')).resolves.toBeDefined();
  });

  it('count as from one address where they come from one network of IPv6', async () => {
    const tries = Array.from({ length: 100 }, (_, i) => tokens.verify(guessed(), `2001:db8::${i}`));
    await Promise.allSettled(tries);
    expect(asked.length).toBeLessThan(60);
    await expect(tokens.verify(issued().token, '2001:db8:0:1::1')).resolves.toBeDefined();
  });

  it('reach auth only so fast from all addresses together', async () => {
    const tries = Array.from({ length: 1_000 }, (_, i) => tokens.verify(guessed(), `192.0.2.${i}`));
    await Promise.allSettled(tries);
    expect(asked.length).toBeLessThan(500);
  });
});
