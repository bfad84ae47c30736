import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createVerifier } from '@posthorn/service';
import { type TempDir, tempDir } from '@posthorn/testing';

const SECRET = "a secret of more than thirty-two bytes, with a ' in it";
const verifier = createVerifier({ jwtSecret: SECRET, production: true });

let home: TempDir;

beforeAll(async () => {
  home = await tempDir();
});
afterAll(async () => {
  await home[Symbol.asyncDispose]();
});

/** Runs `npm run token` where `npm start` never ran, with nothing in the environment but what is given. */
function token(args: readonly string[], env: Record<string, string> = {}) {
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const options = { env: { PATH: process.env.PATH, POSTHORN_HOME: home.path, ...env } };
    execFile(process.execPath, ['tools/token.mjs', ...args], options, (error, out, err) => {
      resolve({ code: error ? Number(error.code) : 0, out, err });
    });
  });
}

const sign = (...args: string[]) => token(['jwt', ...args], { JWT_SECRET: SECRET });

describe('npm run token -- jwt', () => {
  it('signs a token of a user for an hour, and prints nothing else to standard output', async () => {
    const { code, out, err } = await sign('--sub', 'alice');
    expect([code, err]).toEqual([
      0,
      expect.stringContaining('alice of the audience demo, role user, until '),
    ]);
    const principal = await verifier.verify(out.slice(0, -1));
    expect(principal).toMatchObject({ audience: 'demo', sub: 'alice', role: 'user', username: 'alice' });
    expect(principal.expiresAt! - principal.issuedAt!).toBe(3_600);
    expect(principal.tokenId).toBeDefined();
  });

  it('puts in what it is told', async () => {
    const { out } = await sign(
      ...['--sub', 'alice', '--audience', 'acme', '--username', 'al', '--role', 'service'],
      ...['--room', 'e1/s1', '--expires', '7d', '--json'],
      ...['--permit-publish', 'a/*', '--permit-publish', 'b', '--permit-subscribe', '>'],
    );
    const { token: jwt, claims } = JSON.parse(out);
    expect(claims.exp - claims.iat).toBe(7 * 24 * 3_600);
    expect(await verifier.verify(jwt)).toMatchObject({
      audience: 'acme',
      username: 'al',
      role: 'service',
      room: { event_id: 'e1', session_id: 's1' },
      permissions: { publish: ['a/*', 'b'], subscribe: ['>'] },
    });
  });

  it('signs one without end for development', async () => {
    const { out, err } = await sign('--sub', 'alice', '--expires', 'never');
    expect(err).toContain('without end');
    await expect(verifier.verify(out.trim())).rejects.toMatchObject({ detail: /no claim exp/ });
  });

  it('takes the secret that npm start left', async () => {
    writeFileSync(join(home.path, 'dev.env'), `JWT_SECRET='${SECRET.replaceAll("'", "'\\''")}'\n`);
    const { out } = await token(['jwt', '--sub', 'alice']);
    await expect(verifier.verify(out.trim())).resolves.toMatchObject({ sub: 'alice' });
  });

  it.each<[string, Record<string, string>, string]>([
    ['there is no secret', { POSTHORN_HOME: '/nowhere' }, 'npm start has not run here'],
    ['an identity provider signs', { JWKS_URL: 'https://id.example/jwks' }, 'your identity provider'],
    ['it is production', { JWT_SECRET: SECRET, NODE_ENV: 'production' }, 'NODE_ENV is production'],
  ])('says so where %s, and ends with 1', async (_, env, why) => {
    const { code, out, err } = await token(['jwt', '--sub', 'alice'], env);
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain(why);
  });
});

describe('npm run token', () => {
  it.each([
    [[]],
    [['api']],
    [['api', 'forget']],
    [['frobnicate']],
    [['jwt']],
    [['jwt', 'alice']],
    [['jwt', '--sub', 'alice', '--role', 'king']],
    [['jwt', '--sub', 'alice', '--room', 'e1']],
    [['jwt', '--sub', 'alice', '--expires', '1y']],
    [['jwt', '--sub', 'alice', '--name', 'x']],
    [['api', 'create', '--name', 'x']],
    [['api', 'create', '--scope', 'publish:event']],
    [['api', 'list', 'x']],
    [['api', 'list', '--limit', '0']],
    [['api', 'revoke']],
    [['api', 'revoke', 'x', 'y']],
  ])('does not understand %j, and ends with 2', async (args) => {
    const { code, out, err } = await token(args, { JWT_SECRET: SECRET });
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('npm run token -- help');
  });

  it.each([[['help']], [['--help']], [['api', 'create', '--help']]])(
    'tells what it does for %j',
    async (args) => {
      expect(await token(args)).toMatchObject({
        code: 0,
        out: expect.stringContaining('api revoke <id>'),
        err: '',
      });
    },
  );
});
