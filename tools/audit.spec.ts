import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { advisoryFindings, askRegistry, lockFindings } from './audit.mjs';

describe('the lock file', () => {
  const good = { version: '1.0.0', license: 'MIT', integrity: 'sha512-x' };
  const findings = (locked: object, manifest: object = {}) =>
    lockFindings(manifest, { '': {}, 'node_modules/a/node_modules/@b/c': { ...good, ...locked } });

  it('has nothing to find in it where all is well', () => {
    expect(findings({})).toEqual([]);
    expect(findings({ license: '(MIT OR GPL-3.0)' })).toEqual([]);
    expect(findings({ hasInstallScript: true }, { allowScripts: { '@b/c': false } })).toEqual([]);
    expect(findings({ dev: true, optional: true, license: undefined, integrity: undefined })).toEqual([]);
  });

  it.each([
    [{ license: 'GPL-3.0' }, '@b/c: licence GPL-3.0'],
    [{ license: 'MIT AND GPL-3.0' }, '@b/c: licence MIT AND GPL-3.0'],
    [{ license: undefined }, '@b/c: licence unknown'],
    [{ integrity: undefined }, '@b/c: no hash in the lock file'],
    [{ resolved: 'https://elsewhere.example/c.tgz' }, '@b/c: the lock file names where it came from'],
    [{ hasInstallScript: true }, '@b/c: an install script that allowScripts in package.json does not know'],
  ])('is told of %j', (locked, finding) => {
    expect(findings(locked)).toEqual([finding]);
  });

  it.each(['^1.0.0', '1.x', 'latest', 'git+https://example.org/x', ''])(
    'wants exact versions: not %j',
    (version) => {
      expect(findings({}, { dependencies: { a: '1.2.3-beta.1', b: version } })).toEqual([
        `b: ${version} is not an exact version`,
      ]);
    },
  );
});

describe('advisories', () => {
  const advisory = { name: 'ws', id: 'GHSA-1', severity: 'high', title: 'Falls over' };
  const allowed = (until: string, reason = 'Not reachable') => [{ advisory: 'GHSA-1', reason, until }];

  it('count from high on', () => {
    expect(advisoryFindings([advisory], [], '2026-01-01')).toEqual(['ws: GHSA-1 (high) Falls over']);
    expect(advisoryFindings([{ ...advisory, severity: 'critical' }], [], '2026-01-01')).toHaveLength(1);
    expect(advisoryFindings([{ ...advisory, severity: 'moderate' }], [], '2026-01-01')).toEqual([]);
  });

  it('are allowed for a reason, until a day', () => {
    expect(advisoryFindings([advisory], allowed('2026-01-01'), '2026-01-01')).toEqual([]);
    expect(advisoryFindings([advisory], allowed('2026-01-01'), '2026-01-02')).toEqual([
      'GHSA-1: was allowed until 2026-01-01',
    ]);
    for (const entries of [allowed('soon'), allowed('2026-01-01', '')]) {
      expect(advisoryFindings([], entries, '2026-01-01')).toEqual([
        'GHSA-1: allowed without a reason or a day',
      ]);
    }
  });
});

describe('a registry', () => {
  /** Speaks npm's protocol for advisories, as far as npm asks. */
  const registry = createServer((request, response) => {
    const known = request.url === '/good/-/npm/v1/security/advisories/bulk';
    response.writeHead(known ? 200 : 405, { 'content-type': 'application/json' });
    const advisory = {
      id: 1,
      url: 'https://github.com/advisories/GHSA-1',
      title: 'Falls over',
      severity: 'high',
      vulnerable_versions: '<2.0.0',
    };
    request.resume().on('end', () => response.end(known ? JSON.stringify({ lame: [advisory] }) : '{}'));
  });
  let url: string;
  let directory: string;

  beforeAll(async () => {
    await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(registry.address() as AddressInfo).port}`;
    directory = mkdtempSync(join(tmpdir(), 'posthorn-audit-'));
    const manifest = { name: 'x', version: '1.0.0', dependencies: { lame: '1.0.0' } };
    const packages = { '': manifest, 'node_modules/lame': { version: '1.0.0' } };
    writeFileSync(join(directory, 'package.json'), JSON.stringify(manifest));
    writeFileSync(join(directory, 'package-lock.json'), JSON.stringify({ lockfileVersion: 3, packages }));
  });
  afterAll(() => {
    rmSync(directory, { recursive: true });
    registry.close();
    registry.closeAllConnections();
  });

  const ask = (path: string) => askRegistry(directory, [`--registry=${url}${path}`]);

  it('says what is known of what runs in production', async () => {
    expect(await ask('/good/')).toEqual({
      advisories: [{ name: 'lame', id: 'GHSA-1', severity: 'high', title: 'Falls over' }],
    });
  });

  it('that does not answer is told from one that knows nothing', async () => {
    expect(await ask('/none/')).toEqual({ unanswered: expect.any(String) });
  });
});
