/** What the doctor says of facts; how it comes by them is in test/doctor.spec.ts, on real servers. */
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import type { StreamInfo } from '@nats-io/jetstream';
import type { ServerInfo } from '@nats-io/transport-node';
import { CHECKS } from './checks.js';
import { clockFinding } from './clock.js';
import { finding, ok } from './finding.js';
import { natsFindings, replicasFinding, versionFinding } from './nats.js';
import { type Monitored, roomFindings, syncFindings } from './nats-monitor.js';
import { filesFinding, memoryFinding, nodeFinding } from './process.js';
import { merged, reportJson, reportText } from './report.js';
import { estimatedBits, isLoopback, passwordIn, signingFindings, weaknessOf } from './secrets.js';
import { copiesFinding, retentionFinding } from './streams.js';

const GIB = 1024 ** 3;

describe('the strength of a secret', () => {
  it.each(['hex', 'base64', 'base64url'] as const)('is enough for 32 random bytes in %s', (encoding) => {
    for (let times = 0; times < 200; times++)
      expect(weaknessOf(randomBytes(32).toString(encoding))).toBeUndefined();
  });

  it('is enough for what npm run secrets makes', () => {
    expect(weaknessOf(`s${randomBytes(32).toString('hex')}`)).toBeUndefined();
  });

  it.each([
    ['short', 'k3!x9'],
    ['one character', 'a'.repeat(64)],
    ['a row', 'abcdefghijklmnopqrstuvwxyz0123456789'],
    ['a row of digits, again and again', '1234567890'.repeat(5)],
    ['a word, again and again', 'supersecret'.repeat(4)],
    ['a word that everybody tries', 'change-me-change-me-change-me-xx'],
    ['a long placeholder', 'your-secret-key-goes-here-please!'],
  ])('is not enough for %s', (_, secret) => {
    expect(weaknessOf(secret)).toBeDefined();
  });

  it('grows with what the text did not foretell', () => {
    expect(estimatedBits('')).toBe(0);
    expect(estimatedBits('aaaa')).toBe(0);
    expect(estimatedBits('q8Zt')).toBeGreaterThan(estimatedBits('qqZZ'));
  });

  it('is told without the secret', () => {
    const secret = 'sesame-sesame-sesame-sesame-sesame';
    const findings = signingFindings(
      { jwtSecret: secret, keySecret: `${secret},x`, jwksUrl: undefined },
      true,
    );
    expect(findings.map(({ id, severity }) => `${id} ${severity}`)).toEqual([
      'secrets.signing failure',
      'secrets.signing failure',
      'secrets.signing failure',
      'secrets.distinct failure',
    ]);
    expect(JSON.stringify(findings)).not.toContain('sesame');
  });

  it('is a warning outside production', () => {
    const findings = signingFindings({ jwtSecret: undefined, keySecret: 'x', jwksUrl: undefined }, false);
    expect(findings).toMatchObject([{ severity: 'warning' }]);
  });

  it('is taken from a URL, where it stands as a password or as a token of NATS', () => {
    expect(passwordIn('postgres://me:se%21same@db/x')).toBe('se!same');
    expect(passwordIn('nats://token@a:4222,nats://b:4222')).toBe('token');
    expect(passwordIn('postgres://me@db/x')).toBeUndefined();
  });

  it('is taken as it stands where its percent signs encode nothing: the driver of PostgreSQL takes it, too', () => {
    expect(passwordIn('postgres://me:100%zz@db/x')).toBe('100%zz');
  });
});

describe('JWKS_URL', () => {
  it.each([
    ['https://id.example.com/jwks', 'ok'],
    ['http://127.0.0.1:9000/jwks', 'ok'],
    ['http://id.example.com/jwks?key=sesame', 'warning'],
  ])('%s: %s', (jwksUrl, severity) => {
    const findings = signingFindings(
      { jwtSecret: undefined, keySecret: randomBytes(32).toString('hex'), jwksUrl },
      true,
    );
    expect(findings.at(-1)).toMatchObject({ id: 'secrets.jwks', severity });
    expect(JSON.stringify(findings)).not.toContain('sesame');
  });
});

describe('a clock', () => {
  const asked = 1_000_000;
  it.each([
    ['within the time that the answer took', asked + 4_000, 'ok'],
    ['a little beside it', asked + 5_900, 'ok'],
    ['ahead', asked + 12_000, 'warning'],
    ['behind', asked - 7_000, 'warning'],
    ['far behind', asked - 3_600_000, 'failure'],
  ])('%s', (_, theirs, severity) => {
    expect(clockFinding('clock.nats', 'JetStream', { asked, answered: asked + 5_000, theirs }).severity).toBe(
      severity,
    );
  });

  it('says which way and by how much', () => {
    expect(
      clockFinding('clock.database', 'PostgreSQL', { asked, answered: asked, theirs: asked - 90_000 }).found,
    ).toBe("the clock of PostgreSQL is 90.0 s behind this machine's");
  });
});

describe('the process', () => {
  it('wants Node.js 20.19 or later', () => {
    expect(['v20.18.3', 'v20.19.0', 'v24.1.0'].map((version) => nodeFinding(version).severity)).toEqual([
      'failure',
      'ok',
      'ok',
    ]);
  });

  it('wants as many files as the app has connections, and does not take a limit that it cannot see for none', () => {
    expect([1_024, 16_384, Infinity, undefined].map((limit) => filesFinding(limit, 16_384).severity)).toEqual(
      ['warning', 'ok', 'ok', 'unchecked'],
    );
  });

  it('wants the heap within the memory that it may have', () => {
    expect(memoryFinding(2 * GIB, GIB).remedy).toContain('--max-old-space-size=768');
    expect(memoryFinding(GIB / 2, GIB).severity).toBe('ok');
    expect(memoryFinding(GIB, undefined).severity).toBe('ok');
  });
});

describe('a NATS server', () => {
  const info = (more: Partial<ServerInfo>) => ({ version: '2.12.1', ...more }) as ServerInfo;
  const at = (natsUrl: string) => ({ natsUrl, natsCa: undefined, natsCert: undefined });
  const severities = (...args: Parameters<typeof natsFindings>) =>
    Object.fromEntries(natsFindings(...args).map(({ id, severity }) => [id, severity]));

  it.each([
    ['2.8.4', 'failure', 'failure'],
    ['2.9.10', 'warning', 'ok'],
    ['2.11.0', 'warning', 'ok'],
    ['2.12.0', 'ok', 'ok'],
    ['3.0.0', 'ok', 'ok'],
  ])('of version %s: %s in production, %s elsewhere', (version, production, elsewhere) => {
    expect(versionFinding(version, true).severity).toBe(production);
    expect(versionFinding(version, false).severity).toBe(elsewhere);
  });

  it('without a login stops production, unless it is on this machine', () => {
    expect(severities(info({}), at('nats://nats:4222'), true)['nats.login']).toBe('failure');
    expect(severities(info({}), at('nats://127.0.0.1:4222'), true)['nats.login']).toBe('warning');
    expect(severities(info({}), at('nats://nats:4222'), false)['nats.login']).toBe('ok');
    expect(severities(info({ auth_required: true }), at('nats://nats:4222'), true)['nats.login']).toBe('ok');
  });

  it('wants encryption on a network', () => {
    expect(severities(info({}), at('nats://nats:4222'), true)['nats.tls']).toBe('warning');
    expect(severities(info({}), at('tls://nats:4222'), true)['nats.tls']).toBe('ok');
    expect(severities(info({}), { ...at('nats://nats:4222'), natsCa: 'ca.pem' }, true)['nats.tls']).toBe(
      'ok',
    );
    expect(severities(info({}), at('nats://localhost:4222'), true)['nats.tls']).toBe('ok');
  });

  it.each([
    [1, [], 'warning'],
    [3, [], 'failure'],
    [1, ['a:4222', 'b:4222', 'c:4222'], 'warning'],
    [2, ['a:4222', 'b:4222', 'c:4222'], 'warning'],
    [3, ['a:4222', 'b:4222', 'c:4222'], 'ok'],
    [5, ['a:4222', 'b:4222', 'c:4222'], 'failure'],
  ])('%d copies with the servers %p: %s', (replicas, connect_urls, severity) => {
    const server = info(connect_urls.length > 0 ? { cluster: 'c', connect_urls } : {});
    expect(replicasFinding(server, replicas, true).severity).toBe(severity);
  });

  /** As the monitoring ports of 2.9 and 2.12 show it. */
  const monitored = (version: string, config: object) =>
    ({ varz: { server_name: 'nats-0', version, now: '', jetstream: { config } } }) as unknown as Monitored;

  it.each([
    ['2.9.10', {}, 'warning', 'every two minutes'],
    ['2.12.1', { sync_interval: 120e9 }, 'warning', 'every 120 s'],
    ['2.12.1', { sync_interval: 10e9 }, 'ok', 'every 10 s'],
    ['2.12.1', { sync_interval: 120e9, sync_always: true }, 'ok', 'with each write'],
    ['2.12.1', {}, 'unchecked', 'does not show'],
  ])('%s that shows %p: %s', (version, config, severity, found) => {
    expect(syncFindings([monitored(version, config)])).toMatchObject([
      { severity, found: expect.stringContaining(found) },
    ]);
  });

  it('is not taken for well where nobody can look', () => {
    expect(syncFindings(undefined)).toMatchObject([
      { severity: 'unchecked', remedy: expect.stringMatching(/varz/) },
    ]);
  });

  it('has room for what the streams may hold, or has not', () => {
    const server = monitored('2.12.1', { max_storage: 20 * GIB });
    expect(roomFindings([server], 21 * GIB)).toMatchObject([
      { severity: 'failure', found: expect.stringContaining('20 GiB') },
    ]);
    expect(roomFindings([server], 20 * GIB)).toMatchObject([{ severity: 'ok' }]);
  });
});

describe('a stream', () => {
  const DAY = 24 * 3_600_000;
  const now = Date.UTC(2026, 0, 10);
  const stream = (bytes: number, ageMs: number) =>
    ({
      config: { name: 'PH_GLOBAL', max_bytes: 10 * GIB, max_age: 7 * DAY * 1e6 },
      state: { messages: bytes > 0 ? 1 : 0, bytes, first_ts: new Date(now - ageMs).toISOString() },
    }) as StreamInfo;

  it.each([
    ['nothing', 0, 0, 'ok'],
    ['a burst of the last minutes', 5 * GIB, 60_000, 'ok'],
    ['a week in half of its bytes', 5 * GIB, 7 * DAY, 'ok'],
    ['half of its bytes in a day', 5 * GIB, DAY, 'warning'],
    ['all of its bytes in two days', 10 * GIB, 2 * DAY, 'warning'],
  ])('with %s', (_, bytes, age, severity) => {
    expect(retentionFinding(stream(bytes, age), now).severity).toBe(severity);
  });

  it('says for how long it has room', () => {
    expect(retentionFinding(stream(10 * GIB, 2 * DAY), now).found).toContain(
      'full with the last 2 days, and 7 days are wanted',
    );
    expect(retentionFinding(stream(5 * GIB, DAY), now).found).toContain(
      'full after 2 days, and 7 days are wanted',
    );
  });

  const peer = (name: string, more: object = {}) => ({
    name,
    current: true,
    offline: false,
    active: 0,
    lag: 0,
    ...more,
  });
  const copies = (cluster: object) =>
    copiesFinding({
      config: { name: 'PH_GLOBAL', num_replicas: 3 },
      cluster: { name: 'c', ...cluster },
    } as StreamInfo);

  it.each([
    ['is well with its copies', { leader: 'a', replicas: [peer('b'), peer('c')] }, 'ok'],
    [
      'has a copy that lags',
      { leader: 'a', replicas: [peer('b', { current: false, lag: 9 }), peer('c')] },
      'warning',
    ],
    [
      'has a copy that is away',
      { leader: 'a', replicas: [peer('b', { offline: true }), peer('c')] },
      'failure',
    ],
    ['has no leader', { replicas: [peer('b'), peer('c')] }, 'failure'],
  ])('%s', (_, cluster, severity) => {
    expect(copies(cluster).severity).toBe(severity);
  });
});

describe('this machine', () => {
  it.each(['localhost', 'a.localhost', '127.0.0.1', '127.1.2.3', '::1', '[::1]'])('is %s', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each(['127.0.0.1.example.com', 'localhost.example.com', '10.0.0.1', 'nats'])('is not %s', (host) => {
    expect(isLoopback(host)).toBe(false);
  });
});

describe('the report', () => {
  const bad = finding('nats.login', 'failure', 'NATS asks for no login', 'Give it users.');
  const reported = merged({
    auth: [bad, ok('nats.version', 'NATS 2.12.1')],
    registry: [ok('nats.version', 'NATS 2.12.1'), bad, ok('nats.tls', 'encrypted')],
  });

  it('says each thing once, and for which apps, the worst last', () => {
    expect(reported.map(({ id, apps }) => [id, apps])).toEqual([
      ['nats.version', ['auth', 'registry']],
      ['nats.tls', ['registry']],
      ['nats.login', ['auth', 'registry']],
    ]);
  });

  it('says what was found, why it matters, and what to do, within the width', () => {
    const text = reportText(reported, { width: 60, colours: false });
    expect(text).toBe(`ok  nats.version: NATS 2.12.1
ok  nats.tls: encrypted

FAILURE  nats.login (auth, registry)
  NATS asks for no login.
  Why   Who can connect without one may publish, hear and
        delete everything.
  Do    Give it users.

1 failure, 0 warnings, 0 not checked, 2 ok
`);
  });

  it('is coloured where it is asked to be', () => {
    expect(reportText(reported, { width: 60, colours: true })).toContain('\u001b[31mFAILURE\u001b[39m');
  });

  it('is JSON for machines', () => {
    expect(JSON.parse(reportJson(reported)).findings.at(-1)).toEqual({
      id: 'nats.login',
      severity: 'failure',
      apps: ['auth', 'registry'],
      found: 'NATS asks for no login',
      why: CHECKS['nats.login'].why,
      remedy: 'Give it users.',
    });
  });

  it('writes what steers a terminal as blanks', () => {
    const steering = merged({ auth: [finding('nats.reachable', 'failure', '\u001b[2J\nx', 'y')] });
    expect(reportText(steering, { width: 60, colours: false })).not.toContain('\u001b');
  });
});
