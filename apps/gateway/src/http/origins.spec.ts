import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isOriginEntry, Origins } from './origins.js';

const listed = new Origins(
  ['https://app.example', 'http://localhost:3000', 'https://*.team.example:8443', 'capacitor://localhost'],
  false,
);

describe('an origin of the list', () => {
  it.each([
    'https://app.example',
    'https://app.example:443',
    'HTTPS://App.Example',
    'http://localhost:3000',
    'https://a.team.example:8443',
    'https://a.b.team.example:8443',
    'capacitor://localhost',
  ])('is allowed: %s', (origin) => {
    expect(listed.includes(origin)).toBe(true);
  });

  it.each([
    'http://app.example',
    'https://app.example:444',
    'https://app.example:80',
    'https://app.example.',
    'https://app.example/',
    'https://app.example/path',
    'https://app.example@evil.example',
    'https://evil.example#https://app.example',
    'https://evil-app.example',
    'https://app.example.evil.example',
    'https://sub.app.example',
    'https://app.example, https://app.example',
    'https://app.example https://evil.example',
    ' https://app.example',
    'https://app.example\\.evil.example',
    'https://app%2eexample',
    'http://localhost',
    'https://team.example:8443',
    'https://.team.example:8443',
    'https://evilteam.example:8443',
    'https://a.team.example',
    'ionic://localhost',
    'null',
    '',
  ])('is nothing else: %j', (origin) => {
    expect(listed.includes(origin)).toBe(false);
    expect(listed.admits({ origin })).toBe(false);
  });

  it('may be international, in either form', () => {
    const origins = new Origins(['https://bücher.example'], false);
    expect(origins.includes('https://xn--bcher-kva.example')).toBe(true);
  });

  it('may be an address', () => {
    const origins = new Origins(['http://[::1]:8080', 'http://127.0.0.1'], false);
    expect(origins.includes('http://[::1]:8080')).toBe(true);
    expect(origins.includes('http://[::1]')).toBe(false);
    expect(origins.includes('http://127.0.0.1:80')).toBe(true);
  });
});

describe('what sends no Origin', () => {
  it('is a program, or a page of the gateway', () => {
    expect(listed.admits({})).toBe(true);
    expect(listed.admits({ 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' })).toBe(true);
    expect(listed.admits({ 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate' })).toBe(true);
  });

  it.each(['cross-site', 'same-site', undefined])('is refused where a page embeds it (%s)', (site) => {
    expect(listed.admits({ 'sec-fetch-site': site, 'sec-fetch-mode': 'no-cors' })).toBe(false);
  });
});

describe('a page of the gateway itself', () => {
  const host = 'events.example:8080';
  const demo = new Origins([], true);

  it('is allowed where there are some', () => {
    expect(demo.admits({ host, origin: `http://${host}` })).toBe(true);
    expect(demo.admits({ host, origin: `https://${host}` })).toBe(true);
    expect(demo.admits({ host, origin: 'http://events.example' })).toBe(false);
    expect(demo.admits({ origin: 'http://undefined' })).toBe(false);
    expect(listed.admits({ host, origin: `http://${host}` })).toBe(false);
  });
});

describe('*', () => {
  it('allows every page, those of no origin too', () => {
    const all = new Origins(['*'], false);
    for (const origin of ['https://evil.example', 'null', '', undefined])
      expect(all.admits({ origin })).toBe(true);
    expect(all.admits({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' })).toBe(true);
  });
});

describe('an entry of the list', () => {
  it.each([
    '*',
    'https://app.example',
    'https://app.example/',
    'http://localhost:1',
    'http://*.localhost:3000',
  ])('may be %s', (entry) => {
    expect(isOriginEntry(entry)).toBe(true);
  });

  it.each([
    'null',
    'app.example',
    '//app.example',
    'https://',
    'https://app.example/a',
    'https://app.example?a',
    'https://u:p@app.example',
    'https://app.example:99999',
    'https://app.example.',
    'https://*',
    'https://*.example',
    'https://*.*.example.org',
    'https://a.*.example.org',
    'https://*app.example.org',
    'https://*.127.0.0.1',
    'https://*.[::1]',
    '**',
  ])('may not be %s', (entry) => {
    expect(isOriginEntry(entry)).toBe(false);
  });
});

describe('any origins', () => {
  const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}[a-z0-9]$/);
  const host = fc.array(label, { minLength: 2, maxLength: 4 }).map((labels) => labels.join('.'));
  const port = fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined });
  const origin = fc
    .record({ scheme: fc.constantFrom('http', 'https'), host, port })
    .map(({ scheme, host, port }) => `${scheme}://${host}${port === undefined ? '' : `:${port}`}`)
    .filter((text) => URL.canParse(text));

  it('are allowed just where the browser would call them the same', () => {
    fc.assert(
      fc.property(origin, origin, fc.boolean(), (listed, asked, same) => {
        const sent = new URL(same ? listed : asked).origin;
        expect(new Origins([listed], false).includes(sent)).toBe(new URL(listed).origin === sent);
      }),
    );
  });

  it('are not allowed by what stands around one of the list', () => {
    const garbage = fc.string({ unit: 'binary', minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(origin, garbage, garbage, (listed, before, behind) => {
        const origins = new Origins([listed], false);
        for (const sent of [before + listed, listed + behind, before + listed + behind]) {
          const allowed = origins.includes(sent);
          expect(allowed && new URL(sent).origin !== new URL(listed).origin).toBe(false);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('below a name are those that end in it, behind a dot', () => {
    fc.assert(
      fc.property(host, host, (name, other) => {
        const origins = new Origins([`https://*.${name}`], false);
        expect(origins.includes(`https://${other}.${name}`)).toBe(true);
        expect(origins.includes(`https://${name}`)).toBe(false);
        expect(origins.includes(`https://x${name}`)).toBe(false);
        expect(origins.includes(`https://${name}.${other}`)).toBe(`${name}.${other}`.endsWith(`.${name}`));
      }),
    );
  });
});
