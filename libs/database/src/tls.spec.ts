import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ConfigError, readConfig, StartError } from '@posthorn/service';
import {
  createAuthority,
  createDatabase,
  startPostgres,
  type TempDir,
  type TestAuthority,
  type TestCertificate,
  tempDir,
} from '@posthorn/testing';
import { openDatabase } from './data-source.js';
import { MIGRATION_FIELDS } from './migrations.js';
import { databaseSettings, databaseTls } from './tls.js';

let home: TempDir;
let authority: TestAuthority;
let stranger: TestAuthority;

beforeAll(async () => {
  home = await tempDir();
  authority = await createAuthority(home.path);
  stranger = await createAuthority(home.path, 'stranger');
});
afterAll(async () => {
  await home?.[Symbol.asyncDispose]();
});

const read = (env: Record<string, string>) => readConfig(MIGRATION_FIELDS, { env, rules: [databaseTls] });

/** Connects as an app with this configuration does, and says whether that is encrypted. */
async function encrypted(env: Record<string, string>): Promise<boolean> {
  const source = await openDatabase({ ...databaseSettings(read(env)), schema: 'spec', entities: [] });
  try {
    const [{ ssl }] = await source.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
    return ssl;
  } finally {
    await source.destroy();
  }
}

/** What the start ends with, as it is printed. */
async function refusal(env: Record<string, string>): Promise<string> {
  const error = await encrypted(env).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(StartError);
  expect((error as StartError).message).not.toContain(new URL(env.DATABASE_URL ?? '').password);
  return (error as StartError).message;
}

function findings(env: Record<string, string>) {
  try {
    read(env);
  } catch (error) {
    expect(String(error)).not.toContain('sesame');
    if (error instanceof ConfigError) return error.findings;
  }
  throw new Error('the configuration was accepted');
}

describe('a connection to PostgreSQL', () => {
  it('is plain without sslmode and files, and never where TLS is demanded', async () => {
    await using database = await createDatabase();
    const { host } = new URL(database.url);
    expect(await encrypted({ DATABASE_URL: database.url })).toBe(false);
    expect(await encrypted({ DATABASE_URL: `${database.url}?sslmode=disable` })).toBe(false);
    const said = `No connection to PostgreSQL at ${host}: it offers no TLS; sslmode in DATABASE_URL, DATABASE_CA and DATABASE_CERT demand it`;
    for (const mode of ['require', 'verify-full'])
      expect(await refusal({ DATABASE_URL: `${database.url}?sslmode=${mode}` })).toBe(said);
    expect(await refusal({ DATABASE_URL: database.url, DATABASE_CA: authority.caFile })).toBe(said);
  });

  it('is encrypted, to a server with our name that asks for a certificate', async () => {
    const [server, client, other] = await Promise.all([
      authority.issue('server'),
      authority.issue('client'),
      stranger.issue('other'),
    ]);
    await using postgres = await startPostgres({ tls: { ...server, caFile: authority.caFile, client } });
    const bare = await postgres.ensureDatabase('spec');
    const files = ({ certFile, keyFile }: TestCertificate) => ({
      DATABASE_CERT: certFile,
      DATABASE_KEY: keyFile,
    });
    const env = { DATABASE_URL: bare.replace('?sslmode=verify-full', ''), DATABASE_CA: authority.caFile };
    expect(await encrypted({ ...env, ...files(client) })).toBe(true);
    for (const mode of ['require', 'verify-full', 'verify-ca']) {
      const DATABASE_URL = `${env.DATABASE_URL}?sslmode=${mode}`;
      expect(await encrypted({ ...env, DATABASE_URL, ...files(client) })).toBe(true);
    }
    expect(await refusal(env)).toMatch(
      /: it asks for a certificate, and DATABASE_CERT names none that it accepts \(.*client certificate\)$/,
    );
    expect(await refusal({ ...env, ...files(other) })).toContain(
      `it does not accept the certificate in DATABASE_CERT (${other.certFile})`,
    );
    expect(await refusal({ ...env, ...files(client), DATABASE_CA: stranger.caFile })).toContain(
      `its certificate is not signed by an authority in DATABASE_CA (${stranger.caFile}) (`,
    );
    expect(await refusal({ DATABASE_URL: `${env.DATABASE_URL}?sslmode=require` })).toContain(
      'its certificate is not signed by a public authority; DATABASE_CA names the file of a private one (',
    );
    expect(await refusal({ DATABASE_URL: env.DATABASE_URL })).toContain(
      'it takes no connection of this user without TLS; sslmode=verify-full in DATABASE_URL demands it',
    );
  });

  it('is refused to a server with another name, but for verify-ca, and to one that has expired', async () => {
    const caFile = authority.caFile;
    const other = await authority.issue('elsewhere', { hosts: ['db.example'] });
    const late = await authority.issue('late', { expired: true });
    await using elsewhere = await startPostgres({ tls: { ...other, caFile } });
    await using expired = await startPostgres({ tls: { ...late, caFile } });
    const env = { DATABASE_URL: elsewhere.url('postgres'), DATABASE_CA: caFile };
    expect(await refusal(env)).toMatch(/: its certificate is for another name\. .*127\.0\.0\.1/);
    expect(await encrypted({ ...env, DATABASE_URL: env.DATABASE_URL.replace('full', 'ca') })).toBe(true);
    for (const mode of ['verify-full', 'verify-ca']) {
      const DATABASE_URL = expired.url('postgres').replace('verify-full', mode);
      expect(await refusal({ ...env, DATABASE_URL })).toMatch(
        /: its certificate, or that of its authority, has expired \(CERT_HAS_EXPIRED\)$/,
      );
    }
  });
});

describe('sslmode', () => {
  const URL_ = 'postgres://me:sesame@db.example/posthorn';

  it.each(['prefer', 'allow', 'no-verify', 'VERIFY-FULL', ''])('is never %j', (mode) => {
    expect(findings({ DATABASE_URL: `${URL_}?sslmode=${mode}` })).toEqual([
      {
        name: 'DATABASE_URL',
        got: `sslmode=${JSON.stringify(mode)}`,
        wants: 'sslmode disable, require, verify-ca, verify-full, or none',
      },
    ]);
  });

  it('is all that the URL may say of TLS', () => {
    const query =
      'ssl=false&sslrootcert=/ca.crt&sslnegotiation=direct&uselibpqcompat=true&sslmode=verify-full';
    expect(findings({ DATABASE_URL: `${URL_}?${query}` })).toEqual([
      {
        name: 'DATABASE_URL',
        got: 'ssl and sslrootcert and sslnegotiation and uselibpqcompat in its query',
        wants: 'sslmode only: DATABASE_CA, DATABASE_CERT and DATABASE_KEY name the files',
      },
    ]);
  });

  it('fits the files', () => {
    const DATABASE_CA = authority.caFile;
    expect(findings({ DATABASE_URL: `${URL_}?sslmode=disable`, DATABASE_CA })).toMatchObject([
      { name: 'DATABASE_URL and DATABASE_CA', wants: 'one or the other' },
    ]);
    expect(findings({ DATABASE_URL: `${URL_}?sslmode=verify-ca` })).toMatchObject([
      { name: 'DATABASE_CA', got: 'nothing' },
    ]);
    expect(findings({ DATABASE_URL: URL_, DATABASE_KEY: '/nowhere' })).toMatchObject([
      { name: 'DATABASE_KEY', got: '"/nowhere", which cannot be read (ENOENT)' },
      { name: 'DATABASE_CERT', got: 'nothing' },
    ]);
  });
});
