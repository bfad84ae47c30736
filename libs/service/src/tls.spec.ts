import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  createAuthority,
  startNats,
  type TempDir,
  type TestAuthority,
  type TestCertificate,
  tempDir,
} from '@posthorn/testing';
import { type ConfigError, natsFields, readConfig } from './config.js';
import { Health } from './health.js';
import { createLogger } from './logger.js';
import { connectNats, natsSettings, natsTls } from './nats.js';
import { StartError } from './start-error.js';

let home: TempDir;
let authority: TestAuthority;
let server: TestCertificate;
let client: TestCertificate;
let stranger: TestAuthority;

beforeAll(async () => {
  home = await tempDir();
  authority = await createAuthority(home.path);
  stranger = await createAuthority(home.path, 'stranger');
  server = await authority.issue('server');
  client = await authority.issue('client');
});
afterAll(async () => {
  await home?.[Symbol.asyncDispose]();
});

const files = ({ certFile, keyFile }: TestCertificate) => ({ NATS_CERT: certFile, NATS_KEY: keyFile });

/** Connects as an app with this configuration does. */
async function connect(env: Record<string, string>) {
  const settings = natsSettings(readConfig(natsFields, { env, rules: [natsTls] }));
  const logger = createLogger({ app: 'auth', level: 'silent' });
  const link = await connectNats({ ...settings, name: 'spec', logger, health: new Health() });
  await link.connection.flush();
  return link;
}

/** What the start ends with, as it is printed. */
async function refusal(env: Record<string, string>): Promise<string> {
  const error = await connect(env).then(
    async (link) => {
      await link.close();
      return undefined;
    },
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StartError);
  return (error as StartError).message;
}

/** What is wrong with a configuration. */
function findings(env: Record<string, string>) {
  try {
    readConfig(natsFields, { env, rules: [natsTls] });
    return [];
  } catch (error) {
    return (error as ConfigError).findings;
  }
}

describe('a connection to NATS', () => {
  it('is encrypted when the URL, an authority or a certificate demands it', async () => {
    await using nats = await startNats({ tls: { ...server, caFile: authority.caFile } });
    const { port } = nats;
    for (const NATS_URL of [`tls://127.0.0.1:${port}`, `nats://localhost:${port}`]) {
      const link = await connect({ NATS_URL, NATS_CA: authority.caFile, ...files(client) });
      expect((await nats.monitor('connz?subs=0')).connections[0]).toMatchObject({
        tls_version: expect.any(String),
      });
      await link.close();
    }
  });

  it('is never plain where TLS is demanded and the server offers none', async () => {
    await using nats = await startNats();
    const { port } = nats;
    const NATS_CA = authority.caFile;
    const said = `No connection to NATS at 127.0.0.1:${port}: it offers no TLS; tls:// in NATS_URL, NATS_CA and NATS_CERT demand it`;
    expect(await refusal({ NATS_URL: `tls://me:sesame@127.0.0.1:${port}` })).toBe(said);
    expect(await refusal({ NATS_URL: `nats://127.0.0.1:${port}`, NATS_CA })).toBe(said);
    expect(await refusal({ NATS_URL: `nats://127.0.0.1:${port}`, ...files(client) })).toBe(said);
    expect((await nats.monitor('varz')).total_connections).toBeGreaterThan(0);
    expect((await nats.monitor('varz')).in_msgs).toBe(0);
  });

  it('is refused to a server of another authority, or of none that is known', async () => {
    await using nats = await startNats({ tls: server });
    expect(await refusal({ NATS_URL: nats.url, NATS_CA: stranger.caFile })).toMatch(
      `its certificate is not signed by an authority in NATS_CA (${stranger.caFile}) (`,
    );
    expect(await refusal({ NATS_URL: nats.url })).toContain(
      'its certificate is not signed by a public authority; NATS_CA names the file of a private one (',
    );
  });

  it('is refused to a server whose certificate has expired', async () => {
    await using nats = await startNats({ tls: await authority.issue('late', { expired: true }) });
    expect(await refusal({ NATS_URL: nats.url, NATS_CA: authority.caFile })).toMatch(
      /its certificate, or that of its authority, has expired \(CERT_HAS_EXPIRED\)$/,
    );
  });

  it.each([
    ['localhost', ['nats.example', '127.0.0.1'], /DNS:nats\.example/],
    ['127.0.0.1', ['localhost', '10.0.0.1'], /127\.0\.0\.1/],
  ])('is refused to a server that is not %s, but %j', async (host, hosts, said) => {
    await using nats = await startNats({ tls: await authority.issue(`other-${host}`, { hosts }) });
    const message = await refusal({ NATS_URL: `tls://${host}:${nats.port}`, NATS_CA: authority.caFile });
    expect(message).toContain('its certificate is for another name. ');
    expect(message).toMatch(said);
  });

  it('is refused without a certificate, or with one of another authority, where the server asks for one', async () => {
    await using nats = await startNats({ tls: { ...server, caFile: authority.caFile } });
    const env = { NATS_URL: nats.url, NATS_CA: authority.caFile };
    const other = await stranger.issue('other');
    const [none, wrong] = await Promise.all([refusal(env), refusal({ ...env, ...files(other) })]);
    expect(none).toContain('it asks for a certificate, and NATS_CERT names none');
    expect(wrong).toContain(`it does not accept the certificate in NATS_CERT (${other.certFile})`);
  });
});

describe('the files of TLS', () => {
  const url = { NATS_URL: 'tls://nats:4222' };

  it('are named where they cannot be read, or hold something else', () => {
    const env = { ...url, NATS_CA: '/nowhere/ca.crt', NATS_CERT: client.keyFile, NATS_KEY: client.certFile };
    expect(findings(env)).toEqual([
      {
        name: 'NATS_CA',
        got: '"/nowhere/ca.crt", which cannot be read (ENOENT)',
        wants: 'the path of a file with certificates (PEM)',
      },
      {
        name: 'NATS_CERT',
        got: `"${client.keyFile}", which holds something else`,
        wants: 'the path of a file with certificates (PEM)',
      },
      {
        name: 'NATS_KEY',
        got: `"${client.certFile}", which holds something else`,
        wants: 'the path of a file with a private key (PEM, no passphrase)',
      },
    ]);
  });

  it('are not shown where somebody sets their text instead of a path', () => {
    const NATS_KEY = readFileSync(client.keyFile, 'utf8');
    const [finding] = findings({ ...url, NATS_CERT: client.certFile, NATS_KEY });
    expect(finding).toMatchObject({
      name: 'NATS_KEY',
      got: expect.stringMatching(/^a value of \d+ bytes \(not shown\)/),
    });
    expect(JSON.stringify(finding)).not.toContain(NATS_KEY.split('\n')[1]);
  });

  it('go together', async () => {
    const late = await authority.issue('late-client', { expired: true });
    const { NATS_CERT, NATS_KEY } = files(client);
    expect(findings({ ...url, NATS_CERT })).toMatchObject([{ name: 'NATS_KEY', got: 'nothing' }]);
    expect(findings({ ...url, NATS_KEY })).toMatchObject([{ name: 'NATS_CERT', got: 'nothing' }]);
    expect(findings({ ...url, NATS_CERT, NATS_KEY: server.keyFile })).toEqual([
      {
        name: 'NATS_KEY',
        got: `"${server.keyFile}", which holds another key`,
        wants: 'the key of the first certificate in NATS_CERT',
      },
    ]);
    expect(findings({ ...url, ...files(late) })).toMatchObject([
      { name: 'NATS_CERT', wants: 'a certificate that is valid now' },
    ]);
  });
});
