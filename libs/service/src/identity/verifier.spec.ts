import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { ProblemError } from '@posthorn/contracts';
import fc from 'fast-check';
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import { createVerifier, TOKEN_LIMIT, type Verifier } from './verifier.js';

const SECRET = 'a shared secret of more than thirty-two bytes';
const now = () => Math.floor(Date.now() / 1_000);
const claims = (more: JWTPayload = {}): JWTPayload => ({
  aud: 'acme',
  sub: 'alice',
  exp: now() + 60,
  ...more,
});

const hs256 = (payload: JWTPayload, secret = SECRET, header: object = {}) =>
  new SignJWT(payload).setProtectedHeader({ alg: 'HS256', ...header }).sign(new TextEncoder().encode(secret));

/** A token put together by hand, as an attacker would. */
function forged(header: object, payload: unknown, signature: (input: string) => string = () => ''): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const input = `${part(header)}.${part(payload)}`;
  return `${input}.${signature(input)}`;
}

const hmac = (algorithm: string, key: string) => (input: string) =>
  createHmac(algorithm, key).update(input).digest('base64url');

async function refusal(verifier: Verifier, token: string): Promise<ProblemError> {
  const error = await verifier.verify(token).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ProblemError);
  return error as ProblemError;
}

async function expectRefused(verifier: Verifier, token: string, detail: RegExp): Promise<void> {
  const { code, detail: said } = await refusal(verifier, token);
  expect({ code, said }).toEqual({ code: 'unauthorized', said: expect.stringMatching(detail) });
}

describe('a verifier with a shared secret', () => {
  const verifier = createVerifier({ jwtSecret: SECRET, production: true });

  it('gives the principal of a token', async () => {
    const token = await hs256(claims({ role: 'service', jti: 'one', iat: 5 }));
    await expect(verifier.verify(token)).resolves.toEqual({
      audience: 'acme',
      sub: 'alice',
      username: 'alice',
      role: 'service',
      tokenId: 'one',
      issuedAt: 5,
      expiresAt: expect.any(Number),
    });
  });

  it.each(['none', 'None', 'NONE', '', undefined])(
    'refuses algorithm %p without a signature',
    async (alg) => {
      await expectRefused(verifier, forged({ alg }, claims()), /must be signed with HS256|not a JWT/);
    },
  );

  it.each(['HS384', 'HS512', 'RS256', 'ES256', 'EdDSA', 'PS256'])('refuses algorithm %s', async (alg) => {
    const sha = alg === 'HS512' ? 'sha512' : 'sha384';
    await expectRefused(verifier, forged({ alg }, claims(), hmac(sha, SECRET)), /must be signed with HS256/);
  });

  it('refuses another secret', async () => {
    await expectRefused(verifier, await hs256(claims(), `${SECRET}.`), /signature is not valid/);
  });

  it('refuses a token whose header asks for extensions that it does not know', async () => {
    const header = { alg: 'HS256', crit: ['b64'], b64: false };
    await expectRefused(verifier, forged(header, claims(), hmac('sha256', SECRET)), /not valid|not a JWT/);
    const unknown = { alg: 'HS256', crit: ['x'], x: 1 };
    await expectRefused(verifier, forged(unknown, claims(), hmac('sha256', SECRET)), /not a JWT/);
  });

  it('tells a token that has expired, to the second', async () => {
    const { code } = await refusal(verifier, await hs256(claims({ exp: now() })));
    expect(code).toBe('token_expired');
  });

  it('does not call a token expired that somebody else signed', async () => {
    await expectRefused(verifier, await hs256(claims({ exp: 1 }), 'other'), /signature is not valid/);
  });

  it('refuses a token before its time', async () => {
    await expectRefused(verifier, await hs256(claims({ nbf: now() + 2 })), /not valid yet/);
    await expect(verifier.verify(await hs256(claims({ nbf: now() })))).resolves.toBeDefined();
  });

  it('demands an end of tokens in production only', async () => {
    const endless = await hs256({ aud: 'acme' });
    await expectRefused(verifier, endless, /no claim exp/);
    const development = createVerifier({ jwtSecret: SECRET, production: false });
    const principal = await development.verify(endless);
    expect(principal.expiresAt).toBeUndefined();
  });

  it.each([
    ['a text', '2030-01-01'],
    ['null', null],
    ['beyond all dates', 1e300],
    ['infinite', Number.POSITIVE_INFINITY],
  ])('refuses an exp that is %s', async (_, exp) => {
    const body = JSON.stringify({ aud: 'acme', exp }).replace(
      '"exp":null',
      exp === null ? '"exp":null' : '"exp":1e999',
    );
    const input = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${Buffer.from(body).toString('base64url')}`;
    await expectRefused(
      verifier,
      `${input}.${hmac('sha256', SECRET)(input)}`,
      /exp must be seconds since 1970/,
    );
  });

  it.each([
    ['missing', undefined],
    ['empty', ''],
    ['two', ['acme', 'other']],
    ['none', []],
    ['a nested list', [['acme']]],
    ['a number', 7],
    ['an object', { acme: true }],
    ['longer than 100 characters', 'a'.repeat(101)],
  ])('refuses an audience that is %s', async (_, aud) => {
    const token = forged({ alg: 'HS256' }, { ...claims(), aud }, hmac('sha256', SECRET));
    await expectRefused(verifier, token, /claim aud must be exactly one/);
  });

  it('checks the issuer where one is set', async () => {
    const strict = createVerifier({ jwtSecret: SECRET, issuer: 'https://id.example', production: true });
    await expectRefused(strict, await hs256(claims()), /no claim iss/);
    await expectRefused(strict, await hs256(claims({ iss: 'https://evil.example' })), /iss is not accepted/);
    await expect(strict.verify(await hs256(claims({ iss: 'https://id.example' })))).resolves.toBeDefined();
  });

  it('does not look at a token of more than 16 KiB', async () => {
    await expectRefused(
      verifier,
      await hs256(claims({ pad: 'x'.repeat(TOKEN_LIMIT) })),
      /longer than 16384 bytes/,
    );
    const large = await hs256(claims({ pad: 'x'.repeat(TOKEN_LIMIT / 2) }));
    await expect(verifier.verify(large)).resolves.toBeDefined();
  });

  it('refuses every text that is no token, without repeating it', async () => {
    const texts = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(fc.base64String(), { maxLength: 6 }).map((parts) => parts.join('.')),
    );
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const { code, message, cause } = await refusal(verifier, text);
        expect(code).toBe('unauthorized');
        expect(text.length > 8 && message.includes(text)).toBe(false);
        expect(cause).toBeUndefined();
      }),
    );
  });

  it('refuses a token in which any one character of the signed part was changed', async () => {
    const token = await hs256(claims());
    const signed = token.lastIndexOf('.');
    for (let i = 0; i < signed; i++) {
      const other = token[i] === 'A' ? 'B' : 'A';
      const { code } = await refusal(verifier, token.slice(0, i) + other + token.slice(i + 1));
      expect(code).toBe('unauthorized');
    }
  });
});

describe('a verifier with published keys', () => {
  const algorithms = ['RS256', 'ES256', 'EdDSA'] as const;
  const pairs = new Map<string, Awaited<ReturnType<typeof generateKeyPair>>>();
  let server: Server;
  let jwksUrl: string;
  let published: object[] = [];
  let fetches = 0;

  const sign = async (alg: string, kid: string, payload = claims()) => {
    const pair = pairs.get(kid) ?? (await generateKeyPair(alg, { extractable: true }));
    pairs.set(kid, pair);
    return new SignJWT(payload).setProtectedHeader({ alg, kid }).sign(pair.privateKey);
  };
  const publish = async (...kids: string[]) => {
    published = await Promise.all(
      kids.map(async (kid) => ({ ...(await exportJWK(pairs.get(kid)!.publicKey)), kid, use: 'sig' })),
    );
  };
  const listen = async (port: number) => {
    server = createServer((_, response) => {
      fetches += 1;
      response.end(JSON.stringify({ keys: published }));
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    jwksUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  };
  const hangUp = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };

  beforeAll(async () => {
    await listen(0);
    for (const alg of algorithms) await sign(alg, alg);
    await publish(...algorithms);
  });
  afterAll(hangUp);

  it.each(algorithms)('accepts %s', async (alg) => {
    const verifier = createVerifier({ jwksUrl, production: true });
    await expect(verifier.verify(await sign(alg, alg))).resolves.toMatchObject({ audience: 'acme' });
  });

  it('fetches the keys once for many tokens', async () => {
    const verifier = createVerifier({ jwksUrl, production: true });
    const before = fetches;
    const tokens = await Promise.all(Array.from({ length: 50 }, () => sign('ES256', 'ES256')));
    await Promise.all(tokens.map((token) => verifier.verify(token)));
    expect(fetches - before).toBe(1);
  });

  it('never takes a public key for a shared secret', async () => {
    const verifier = createVerifier({ jwksUrl, production: true });
    const both = createVerifier({ jwksUrl, jwtSecret: SECRET, production: true });
    const pem = await exportSPKI(pairs.get('RS256')!.publicKey);
    const jwk = JSON.stringify(published[0]);
    for (const secret of [pem, pem.trim(), jwk]) {
      const token = forged({ alg: 'HS256', kid: 'RS256' }, claims(), hmac('sha256', secret));
      await expectRefused(verifier, token, /must be signed with RS256, ES256, EdDSA/);
      await expectRefused(both, token, /signature is not valid/);
    }
    await expectRefused(verifier, await hs256(claims()), /must be signed with RS256, ES256, EdDSA/);
  });

  it.each(['none', 'PS256', 'RS512', 'ES384'])('refuses algorithm %s', async (alg) => {
    const verifier = createVerifier({ jwksUrl, production: true });
    await expectRefused(verifier, forged({ alg, kid: 'RS256' }, claims()), /must be signed with RS256/);
  });

  it('refuses a key that the token brings along', async () => {
    const verifier = createVerifier({ jwksUrl, production: true });
    const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
    const token = await new SignJWT(claims())
      .setProtectedHeader({
        alg: 'ES256',
        kid: 'ES256',
        jwk: await exportJWK(publicKey),
        jku: 'http://127.0.0.1/',
      })
      .sign(privateKey);
    await expectRefused(verifier, token, /signature is not valid/);
  });

  it('lets the algorithm choose where a secret is configured too', async () => {
    const verifier = createVerifier({ jwksUrl, jwtSecret: SECRET, production: true });
    await expect(verifier.verify(await hs256(claims()))).resolves.toBeDefined();
    await expect(verifier.verify(await sign('EdDSA', 'EdDSA'))).resolves.toBeDefined();
  });

  it('refuses an unknown key, and finds it once it is published', async () => {
    const verifier = createVerifier({ jwksUrl, production: true });
    const token = await sign('ES256', 'new');
    await expectRefused(verifier, token, /names an unknown key/);
    await publish(...algorithms, 'new');
    // Within the cool-down nobody asks again: random key ids do not become requests.
    await expectRefused(verifier, token, /names an unknown key/);
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 31_000);
    try {
      await expect(verifier.verify(token)).resolves.toBeDefined();
    } finally {
      clock.mockRestore();
    }
  });

  it('goes on with the keys that it knows while the server is away, however old they are', async () => {
    const verifier = createVerifier({ jwksUrl, production: true });
    const known = await sign('ES256', 'ES256', claims({ exp: now() + 3_600 }));
    const unknown = await sign('ES256', 'later', claims({ exp: now() + 3_600 }));
    await verifier.verify(known);
    const { port } = server.address() as AddressInfo;
    await hangUp();
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 20 * 60_000);
    try {
      await expect(verifier.verify(known)).resolves.toBeDefined();
      await expect(refusal(verifier, unknown)).resolves.toMatchObject({ code: 'unavailable' });
      await listen(port);
      await publish(...algorithms, 'later');
      await expect(verifier.verify(unknown)).resolves.toBeDefined();
    } finally {
      clock.mockRestore();
    }
  });

  it('is unavailable, not unauthorized, when the keys cannot be fetched at all', async () => {
    const away = createVerifier({ jwksUrl: jwksUrl.replace(/:\d+/, ':1'), production: true });
    await expect(refusal(away, await sign('RS256', 'RS256'))).resolves.toMatchObject({ code: 'unavailable' });
  });
});

it('is not made without a key', () => {
  expect(() => createVerifier({ production: false })).toThrow(/jwtSecret or jwksUrl/);
});
