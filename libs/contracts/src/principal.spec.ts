import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isPrivileged, principalId, principalOfClaims } from './principal.js';
import { ProblemError } from './problem.js';

const claims = (more: Record<string, unknown> = {}) => ({ aud: 'acme', sub: '7', ...more });

function refusal(given: Record<string, unknown>): ProblemError {
  try {
    principalOfClaims(given);
  } catch (error) {
    if (error instanceof ProblemError) return error;
    throw error;
  }
  throw new Error(`${JSON.stringify(given)} was taken`);
}

describe('the principal of a token', () => {
  it('is a user of one audience', () => {
    expect(principalOfClaims(claims())).toEqual({ audience: 'acme', sub: '7', username: '7', role: 'user' });
  });

  it('carries what the token says of its life', () => {
    expect(principalOfClaims(claims({ jti: 'j', iat: 1, exp: 2 }))).toMatchObject({
      tokenId: 'j',
      issuedAt: 1,
      expiresAt: 2,
    });
  });

  it.each([
    [{ sub: '7', username: 'alice', preferred_username: 'al' }, '7', 'alice'],
    [{ sub: '7', preferred_username: 'al' }, '7', 'al'],
    [{ sub: '7', username: '' }, '7', '7'],
    [{ sub: 7 }, '7', '7'],
    [{ email: 'a@example.org' }, 'a@example.org', 'a@example.org'],
    [{ sub: '', email: 'a@example.org' }, 'a@example.org', 'a@example.org'],
    [{ sub: null, email: 'a@example.org', username: 'alice' }, 'a@example.org', 'alice'],
    [{ username: 'alice' }, null, 'alice'],
    [{}, null, null],
  ])('%j: sub %j, username %j', (given, sub, username) => {
    expect(principalOfClaims({ aud: 'acme', ...given })).toMatchObject({ sub, username });
  });

  it.each([
    ['service', 'service'],
    ['admin', 'admin'],
    ['user', 'user'],
    ['Admin', 'user'],
    ['root', 'user'],
    ['', 'user'],
    [null, 'user'],
    [undefined, 'user'],
    [['admin'], 'user'],
    [{ toString: () => 'admin' }, 'user'],
    [true, 'user'],
  ])('of role %j is a %s', (role, expected) => {
    const principal = principalOfClaims(claims({ role }));
    expect(principal.role).toBe(expected);
    expect(isPrivileged(principal)).toBe(expected !== 'user');
  });

  it.each([['acme'], [['acme']], ['x'.repeat(100)], ['with spaces'], ['*'], ['ACME']])(
    'of audience %j',
    (aud) => {
      expect(principalOfClaims(claims({ aud })).audience).toBe([aud].flat()[0]);
    },
  );

  it.each([
    undefined,
    null,
    '',
    'x'.repeat(101),
    [],
    ['a', 'b'],
    [['a']],
    [''],
    7,
    {},
    '\ud800',
    'a\0',
    true,
  ])('is not made of audience %j', (aud) =>
    expect(refusal(claims({ aud }))).toMatchObject({ code: 'unauthorized', errors: [{ path: '/aud' }] }),
  );

  it.each([
    ['sub', {}],
    ['sub', ['7']],
    ['sub', true],
    ['sub', Number.POSITIVE_INFINITY],
    ['sub', 'x'.repeat(256)],
    ['sub', 'é'.repeat(128)],
    ['sub', '\udc00'],
    ['sub', 'a\0b'],
    ['username', { toString: () => 'bob' }],
    ['username', 'x'.repeat(256)],
    ['preferred_username', false],
    ['jti', {}],
    ['iat', '1'],
    ['exp', '9999999999'],
    ['exp', Number.POSITIVE_INFINITY],
    ['exp', Number.NaN],
    ['exp', null],
    ['room', 'e1'],
    ['room', {}],
    ['room', { event_id: 'e' }],
    ['room', { event_id: 'e', session_id: 1 }],
    ['room', { event_id: '', session_id: 's' }],
    ['room', ['e', 's']],
    ...['s/x', 's:x', 's.x', '/', 's t', 's\n', 's\0', '*', '>', '\ud800', 's'.repeat(65)].flatMap(
      (id): [string, object][] => [
        ['room', { event_id: 'e', session_id: id }],
        ['room', { event_id: id, session_id: 's' }],
      ],
    ),
    ['permissions', []],
    ['permissions', 'all'],
    ['permissions/publish', { publish: 'all' }],
    ['permissions/publish', { publish: null }],
    ['permissions/publish', { publish: ['a', 7] }],
    ['permissions/subscribe', { subscribe: Array(257).fill('a') }],
    ['permissions/subscribe', { subscribe: { 0: 'a', length: 1 } }],
  ])('is not made of %s %j', (claim, value) => {
    const problem = refusal(claims({ [claim.split('/')[0]!]: value }));
    expect(problem).toMatchObject({ code: 'unauthorized', errors: [{ path: `/${claim}` }] });
  });

  it('belongs to the room of its token', () => {
    const room = { event_id: 'e', session_id: 's', more: true };
    expect(principalOfClaims(claims({ room })).room).toEqual({ event_id: 'e', session_id: 's' });
    expect(principalOfClaims(claims({ room: null }))).not.toHaveProperty('room');
  });

  it('is in a room of any id that can stand in a name', () => {
    for (const id of ['8f14e45f-ceea-4e7b-9c1e-000000000001', '-', '=2F', 'é', '\u{1F600}'.repeat(64)]) {
      const room = { event_id: id, session_id: id };
      expect(principalOfClaims(claims({ room })).room).toEqual(room);
    }
  });

  it('has the permissions of its token, and an empty list is a list', () => {
    const permissions = { publish: [], subscribe: ['a'], other: ['b'] };
    expect(principalOfClaims(claims({ permissions })).permissions).toEqual({ publish: [], subscribe: ['a'] });
    expect(principalOfClaims(claims({ permissions: {} })).permissions).toEqual({});
    expect(principalOfClaims(claims({ permissions: null }))).not.toHaveProperty('permissions');
  });

  it('is plain data, or the token is refused: no claim makes anything else happen', () => {
    const hostile = fc.dictionary(
      fc.constantFrom(
        'aud',
        'sub',
        'email',
        'username',
        'role',
        'room',
        'permissions',
        'jti',
        'iat',
        'exp',
        '__proto__',
        'constructor',
      ),
      fc.oneof(fc.jsonValue(), fc.constantFrom('acme', 'admin')),
    );
    fc.assert(
      fc.property(hostile, (given) => {
        try {
          const principal = principalOfClaims(JSON.parse(JSON.stringify(given)));
          expect(JSON.parse(JSON.stringify(principal))).toEqual(principal);
          expect(isPrivileged(principal)).toBe(given.role === 'admin');
        } catch (error) {
          expect(error).toMatchObject({ code: 'unauthorized' });
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('the id of a principal', () => {
  it('tells principals of an audience apart', () => {
    const ids = [
      { sub: '7' },
      { sub: '8' },
      { sub: '7', role: 'service' },
      { sub: '7', role: 'admin' },
      {},
    ].map((given) => principalId(principalOfClaims({ aud: 'acme', ...given })));
    expect(new Set(ids).size).toBe(ids.length);
  });
});
