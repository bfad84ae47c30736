import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { startPostgresServer } from '../../../tools/embedded/postgres.mjs';
import { createDatabase, startPostgres } from './postgres.js';
import { tempDir } from './temp-dir.js';

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

describe('a PostgreSQL server for tests', () => {
  it('keeps what was committed when it is killed and comes back on the same port', async () => {
    await using server = await startPostgres();
    const url = await server.ensureDatabase('kept');
    await query(url, "CREATE TABLE note AS SELECT 'before the crash' AS text");

    await server.kill();
    await server.start();

    expect(await query(url, 'SELECT text FROM note')).toEqual([{ text: 'before the crash' }]);
  });

  it('stores UTF-8, sorts by code point and answers in UTC', async () => {
    await using server = await startPostgres();
    const url = await server.ensureDatabase('locale');
    expect(await query(url, 'SHOW server_encoding')).toEqual([{ server_encoding: 'UTF8' }]);
    expect(await query(url, "SELECT 'Z' < 'a' AS by_code_point")).toEqual([{ by_code_point: true }]);
    expect(await query(url, 'SHOW timezone')).toEqual([{ TimeZone: 'UTC' }]);
  });

  it('refuses a wrong password', async () => {
    await using server = await startPostgres();
    const url = new URL(server.url('postgres'));
    url.password = 'wrong';
    await expect(query(url.href, 'SELECT 1')).rejects.toThrow(/password authentication failed/);
  });

  it('writes safely unless asked to be fast', async () => {
    await using dir = await tempDir();
    const server = await startPostgresServer({ dir: dir.path, password: 'secret' });
    expect(await query(server.url('postgres'), 'SHOW fsync')).toEqual([{ fsync: 'on' }]);
    await server.kill();
  });

  it('says which variable to set when its port is taken', async () => {
    await using dir = await tempDir();
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const { port } = holder.address() as { port: number };
    await expect(
      startPostgresServer({ dir: dir.path, password: 'secret', fast: true, port }),
    ).rejects.toThrow(`Port ${port}, wanted for PostgreSQL, is in use. Set DATABASE_PORT`);
    holder.close();
  });

  it('ends a server that an earlier run left behind, and takes over its data', async () => {
    await using dir = await tempDir();
    const options = { dir: dir.path, password: 'secret', fast: true };
    const left = await startPostgresServer(options);
    const url = await left.ensureDatabase('taken_over');
    const next = await startPostgresServer({ ...options, port: left.port });
    expect(next.pid).not.toBe(left.pid);
    expect(await query(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await next.kill();
  });
});

describe('a database for a test file', () => {
  it('is empty, its own, and gone afterwards', async () => {
    let gone: string;
    {
      await using first = await createDatabase();
      await using second = await createDatabase();
      await query(first.url, 'CREATE TABLE mine ()');
      expect(await query(second.url, "SELECT to_regclass('mine') AS found")).toEqual([{ found: null }]);
      gone = first.url;
    }
    await expect(query(gone, 'SELECT 1')).rejects.toThrow(/does not exist/);
  });
});
