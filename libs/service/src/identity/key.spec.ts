import { describe, expect, it, jest } from '@jest/globals';
import { type Principal, ProblemError } from '@posthorn/contracts';
import fc from 'fast-check';
import { CompactEncrypt, UnsecuredJWT } from 'jose';
import { KeyRing } from './key.js';

const alice: Principal = {
  audience: 'acme',
  sub: 'alice',
  username: 'älice',
  role: 'user',
  room: { event_id: 'e1', session_id: 's1' },
  permissions: { publish: ['chat/*'], subscribe: [] },
  tokenId: 'one',
  issuedAt: 1_700_000_000,
  expiresAt: 4_000_000_000,
};
const soon = () => Math.floor(Date.now() / 1_000) + 60;

async function refusal(opened: Promise<unknown>): Promise<ProblemError> {
  const error = await opened.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ProblemError);
  return error as ProblemError;
}

describe('a key', () => {
  const ring = new KeyRing('the key secret');
  const seal = () => ring.seal(alice, { purpose: 'socket', expiresAt: soon() });

  it('holds the whole principal', async () => {
    await expect(ring.open(await seal(), 'socket')).resolves.toEqual(alice);
  });

  it('holds any principal', async () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 });
    const principal = fc.record(
      { audience: text, sub: fc.option(text), username: fc.option(text), tokenId: text, issuedAt: fc.nat() },
      { requiredKeys: ['audience', 'sub', 'username'] },
    );
    await fc.assert(
      fc.asyncProperty(principal, async (some) => {
        const sealed = await ring.seal({ ...some, role: 'admin' }, { purpose: 'stream', expiresAt: soon() });
        await expect(ring.open(sealed, 'stream')).resolves.toEqual({ ...some, role: 'admin' });
      }),
    );
  });

  it('goes into a URL and a subprotocol as it is, and shows nothing of what it holds', async () => {
    const key = await seal();
    expect(key).toMatch(/^[A-Za-z0-9_.-]+$/);
    const shown = key.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'));
    expect(shown.join()).not.toMatch(/acme|alice|socket/);
    expect(await seal()).not.toBe(key);
  });

  it('opens for its purpose only', async () => {
    const { code, detail } = await refusal(ring.open(await seal(), 'stream'));
    expect({ code, detail }).toEqual({
      code: 'unauthorized',
      detail: 'The key is for a socket, not for a stream',
    });
  });

  it('expires', async () => {
    const key = await ring.seal(alice, { purpose: 'socket', expiresAt: soon() });
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 60_000);
    try {
      expect((await refusal(ring.open(key, 'socket'))).code).toBe('token_expired');
      expect((await refusal(ring.open(key, 'stream'))).code).toBe('unauthorized');
    } finally {
      clock.mockRestore();
    }
  });

  it('does not open when any one of its characters was changed', async () => {
    const key = await seal();
    for (let i = 0; i < key.length; i++) {
      for (const other of ['A', 'B', '.', '=', '%'].filter((char) => char !== key[i])) {
        const { code } = await refusal(ring.open(key.slice(0, i) + other + key.slice(i + 1), 'socket'));
        expect(code).toBe('unauthorized');
      }
    }
  });

  it('does not open when any one bit of its bytes was flipped, cut off or put on', async () => {
    const key = await seal();
    const parts = key.split('.');
    for (const [at, part] of parts.entries()) {
      const bytes = Buffer.from(part, 'base64url');
      for (let i = 0; i < bytes.length; i++) {
        const flipped = Buffer.from(bytes);
        flipped[i] = bytes[i]! ^ (1 << (i % 8));
        const tampered = parts.with(at, flipped.toString('base64url')).join('.');
        expect((await refusal(ring.open(tampered, 'socket'))).code).toBe('unauthorized');
      }
    }
    for (const other of [`${key}A`, `${key}.`, ` ${key}`, `${key}\n`, key.slice(0, -1), key.slice(1)]) {
      expect((await refusal(ring.open(other, 'socket'))).code).toBe('unauthorized');
    }
  });

  it('is not taken from another secret', async () => {
    const foreign = await new KeyRing('another secret').seal(alice, { purpose: 'socket', expiresAt: soon() });
    expect((await refusal(ring.open(foreign, 'socket'))).code).toBe('unauthorized');
  });

  it('is not made from the secret itself, nor by another algorithm', async () => {
    const [header] = (await seal()).split('.');
    const { kid } = JSON.parse(Buffer.from(header!, 'base64url').toString());
    const content = Buffer.from(JSON.stringify({ purpose: 'socket', expiresAt: soon(), principal: alice }));
    const raw = Buffer.alloc(32, 'the key secret');
    const direct = new CompactEncrypt(content).setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid });
    const wrapped = new CompactEncrypt(content).setProtectedHeader({ alg: 'A256KW', enc: 'A256GCM', kid });
    const slow = new CompactEncrypt(content).setProtectedHeader({
      alg: 'PBES2-HS256+A128KW',
      enc: 'A256GCM',
      kid,
    });
    for (const forged of [
      await direct.encrypt(raw),
      await wrapped.encrypt(raw),
      await slow.encrypt(raw),
      new UnsecuredJWT({ purpose: 'socket' }).encode(),
    ]) {
      expect((await refusal(ring.open(forged, 'socket'))).code).toBe('unauthorized');
    }
  });

  it('is refused without being looked at when it is far too long', async () => {
    expect((await refusal(ring.open('A'.repeat(100_000), 'socket'))).code).toBe('unauthorized');
  });
});

describe('a key ring of several secrets', () => {
  it('opens the keys of all, and seals with the first', async () => {
    const before = new KeyRing('old');
    const during = new KeyRing('new, old');
    const after = new KeyRing('new');
    const options = { purpose: 'socket', expiresAt: soon() } as const;
    await expect(during.open(await before.seal(alice, options), 'socket')).resolves.toEqual(alice);
    await expect(after.open(await during.seal(alice, options), 'socket')).resolves.toEqual(alice);
    await expect(refusal(before.open(await during.seal(alice, options), 'socket'))).resolves.toMatchObject({
      code: 'unauthorized',
    });
  });

  it('needs one', () => {
    expect(() => new KeyRing(' , ')).toThrow(/needs a secret/);
  });
});
