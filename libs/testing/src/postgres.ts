import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import pg from 'pg';
import {
  type PostgresServer,
  type PostgresTlsOptions,
  startPostgresServer,
} from '../../../tools/embedded/postgres.mjs';
import { startInTempDir } from './temp-dir.js';

/** A PostgreSQL server of its own; disposing of it ends it and removes its data. */
export type TestPostgres = PostgresServer & AsyncDisposable;

/**
 * Starts a server on a free loopback port, in about half a second. For tests that kill it; others share one.
 * @param options.tls the server's certificate and its authority; with `client`, clients need one of that authority
 */
export function startPostgres(options: { tls?: PostgresTlsOptions } = {}): Promise<TestPostgres> {
  return startInTempDir((dir) =>
    startPostgresServer({
      dir,
      password: randomUUID(),
      fast: true,
      removeWhenOrphaned: dir,
      ...(options.tls && { tls: options.tls }),
    }),
  );
}

export interface TestDatabase extends AsyncDisposable {
  url: string;
}

/** A fresh, empty database on the server that the test files of one jest worker share; dropped when disposed of. */
export async function createDatabase(): Promise<TestDatabase> {
  const server = await sharedServer();
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await run(server, `CREATE DATABASE ${name}`);
  return {
    url: databaseUrl(server, name),
    [Symbol.asyncDispose]: () => run(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`),
  };
}

/** The URL of the maintenance database. Plain data: objects of an earlier test file may not be called any more. */
type SharedServer = string;

const key = Symbol.for('posthorn.testing.postgres');
// Jest gives each test file its own globals and modules; a class of Node itself is what the files of a worker share.
const worker = EventEmitter as unknown as { [key]?: Promise<SharedServer> };

/** It ends with the worker: nobody stops it, its guard does. */
function sharedServer(): Promise<SharedServer> {
  worker[key] ??= startPostgres().then((server) => server.url('postgres'));
  return worker[key];
}

function databaseUrl(server: SharedServer, database: string): string {
  const url = new URL(server);
  url.pathname = database;
  return url.href;
}

async function run(server: SharedServer, statement: string): Promise<void> {
  const client = new pg.Client(server);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
