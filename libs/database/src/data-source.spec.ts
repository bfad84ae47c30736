import { once } from 'node:events';
import { afterEach, describe, expect, it } from '@jest/globals';
import { createDatabase, startPostgres, startTcpProxy, type TcpProxy } from '@posthorn/testing';
import type pg from 'pg';
import {
  Column,
  type DataSource,
  Entity,
  type MigrationInterface,
  PrimaryColumn,
  type QueryRunner,
} from 'typeorm';
import {
  dataSourceOptions,
  migrateDatabase,
  type OpenDatabaseOptions,
  openDatabase,
  watchDatabase,
} from './data-source.js';
import { isUnavailable } from './failure.js';

@Entity('note')
class Note {
  @PrimaryColumn('uuid', { default: () => 'gen_random_uuid()' })
  id!: string;

  @Column('text')
  text!: string;
}

/** Slow enough for a second replica to arrive while it runs, and written without naming the schema. */
class CreateNotes1700000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(
      'CREATE TABLE note (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), text text NOT NULL)',
    );
    await runner.query('SELECT pg_sleep(0.2)');
    await runner.query(`INSERT INTO note (text) VALUES ('from the migration')`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE note');
  }
}

class Broken1700000000001 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query('CREATE TABLE half_done (id int)');
    await runner.query('SELECT nonsense');
  }

  async down(): Promise<void> {}
}

const open: DataSource[] = [];

afterEach(async () => {
  for (const source of open.splice(0)) if (source.isInitialized) await source.destroy();
});

async function openNotes(options: Partial<OpenDatabaseOptions> & { url: string }): Promise<DataSource> {
  const source = await openDatabase({
    schema: 'notes',
    entities: [Note],
    migrations: [CreateNotes1700000000000],
    poolSize: 2,
    ...options,
  });
  open.push(source);
  return source;
}

/** A link to a database that can be cut, and the URL that goes through it. */
async function linkTo(databaseUrl: string): Promise<TcpProxy & { url: string }> {
  const url = new URL(databaseUrl);
  const link = await startTcpProxy(Number(url.port));
  url.port = String(link.port);
  return Object.assign(link, { url: url.href });
}

/** Tries again at once, up to a deadline that no healthy server misses. */
async function persist<T>(attempt: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

describe('openDatabase', () => {
  it("makes the app's schema and its tables, and nothing elsewhere", async () => {
    await using database = await createDatabase();
    const source = await openNotes({ url: database.url });
    await source.getRepository(Note).save({ text: 'hello' });
    expect(await source.query('SELECT text FROM note ORDER BY text')).toEqual([
      { text: 'from the migration' },
      { text: 'hello' },
    ]);
    const tables = await source.query(
      `SELECT table_schema, table_name FROM information_schema.tables
       WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY table_name`,
    );
    expect(tables).toEqual([
      { table_schema: 'notes', table_name: 'migrations' },
      { table_schema: 'notes', table_name: 'note' },
    ]);
  });

  it('migrates once when several replicas start at the same time', async () => {
    await using database = await createDatabase();
    const [first] = await Promise.all([1, 2, 3].map(() => openNotes({ url: database.url })));
    expect(await first?.query('SELECT count(*)::int AS rows FROM note')).toEqual([{ rows: 1 }]);
    expect(await first?.query('SELECT count(*)::int AS rows FROM migrations')).toEqual([{ rows: 1 }]);
  });

  it('migrates two apps in one database apart from each other', async () => {
    await using database = await createDatabase();
    const [notes, others] = await Promise.all(
      ['notes', 'others'].map((schema) => openNotes({ url: database.url, schema })),
    );
    await notes?.query(`INSERT INTO note (text) VALUES ('mine')`);
    expect(await others?.query('SELECT text FROM note')).toEqual([{ text: 'from the migration' }]);
  });

  it('does not run a migration again', async () => {
    await using database = await createDatabase();
    await openNotes({ url: database.url });
    const again = await openNotes({ url: database.url });
    expect(await again.query('SELECT count(*)::int AS rows FROM note')).toEqual([{ rows: 1 }]);
  });

  it('finds everything done by a run of migrations before it', async () => {
    await using database = await createDatabase();
    const content = { schema: 'notes', entities: [Note], migrations: [CreateNotes1700000000000] };
    for (const _ of ['first', 'second']) await migrateDatabase({ url: database.url, ...content });
    const source = await openNotes({ url: database.url });
    expect(await source.query('SELECT count(*)::int AS rows FROM note')).toEqual([{ rows: 1 }]);
  });

  it('rejects at once when a migration fails, and leaves nothing of it behind', async () => {
    await using database = await createDatabase();
    let attempts = 0;
    const broken = openNotes({
      url: database.url,
      migrations: [CreateNotes1700000000000, Broken1700000000001],
      retry: (attempt) => {
        attempts += 1;
        return attempt();
      },
    });
    await expect(broken).rejects.toThrow('nonsense');
    expect(attempts).toBe(1);
    const source = await openNotes({ url: database.url });
    expect(await source.query(`SELECT to_regclass('half_done') AS half`)).toEqual([{ half: null }]);
  });

  it('waits for a server that is not there yet', async () => {
    await using server = await startPostgres();
    await server.kill();
    const failures: unknown[] = [];
    let tried = () => {};
    const firstTry = new Promise<void>((resolve) => {
      tried = resolve;
    });
    const opening = openNotes({
      url: server.url('postgres'),
      retry: (attempt) =>
        persist(() =>
          attempt().catch((error: unknown) => {
            failures.push(error);
            tried();
            throw error;
          }),
        ),
    });
    await firstTry;
    await server.start();
    expect((await opening).isInitialized).toBe(true);
    expect(failures.every(isUnavailable)).toBe(true);
  });

  it('names itself to the server, and bounds its statements there', async () => {
    await using database = await createDatabase();
    const source = await openNotes({ url: database.url });
    expect(
      await source.query(
        `SELECT current_setting('application_name') AS name, current_setting('statement_timeout') AS time`,
      ),
    ).toEqual([{ name: 'posthorn-notes', time: '10s' }]);
  });

  it('takes plain schema names only', () => {
    expect(() => dataSourceOptions({ url: 'postgres://x', schema: 'a"; --', entities: [] })).toThrow(
      TypeError,
    );
  });
});

describe('a data source', () => {
  it('fails as unavailable while its server is dead, and works again when it is back', async () => {
    await using server = await startPostgres();
    let report = (_: Error) => {};
    const lost = new Promise<Error>((resolve) => {
      report = resolve;
    });
    const source = await openNotes({ url: server.url('postgres'), onConnectionLost: report });

    await server.kill();
    expect(isUnavailable(await lost)).toBe(true);
    const error = await source.query('SELECT 1').then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(isUnavailable(error) || error).toBe(true);

    await server.start();
    expect(await source.query('SELECT count(*)::int AS rows FROM note')).toEqual([{ rows: 1 }]);
  });

  it('fails a transaction whose connection broke between two statements, and stores nothing of it', async () => {
    await using database = await createDatabase();
    await using link = await linkTo(database.url);
    const source = await openNotes({ url: link.url });
    const error = await source
      .transaction(async (manager) => {
        await manager.query(`INSERT INTO note (text) VALUES ('lost')`);
        link.cut();
        await manager.query(`INSERT INTO note (text) VALUES ('lost, too')`);
      })
      .then(
        () => undefined,
        (reason: unknown) => reason,
      );
    expect(isUnavailable(error) || error).toBe(true);
    link.restore();
    expect(await source.query('SELECT text FROM note')).toEqual([{ text: 'from the migration' }]);
  });

  it('bears the failure of a connection that was handed over and has nobody to listen yet', async () => {
    await using database = await createDatabase();
    const source = await openNotes({ url: database.url });
    const { master } = source.driver as unknown as { master: pg.Pool };
    const connection = await master.connect();
    expect(() => connection.emit('error', new Error('terminated'))).not.toThrow();
    connection.release(true);
    expect(await source.query('SELECT count(*)::int AS rows FROM note')).toEqual([{ rows: 1 }]);
  });

  it('fails queries that wait for a connection too long', async () => {
    await using database = await createDatabase();
    const source = await openNotes({ url: database.url, poolSize: 1 });
    const holder = source.createQueryRunner();
    await holder.connect();
    const error = await source.query('SELECT 1').then(
      () => undefined,
      (reason: unknown) => reason,
    );
    await holder.release();
    expect(isUnavailable(error) || error).toBe(true);
  });
});

describe('watchDatabase', () => {
  it('reports whether the server answers', async () => {
    await using database = await createDatabase();
    await using link = await linkTo(database.url);
    const source = await openNotes({ url: link.url });

    const reports = new EventTarget();
    const states: boolean[] = [];
    const stop = watchDatabase(
      source,
      (up) => {
        if (states.at(-1) === up) return;
        states.push(up);
        reports.dispatchEvent(new Event(up ? 'up' : 'down'));
      },
      { everyMs: 20 },
    );
    const down = once(reports, 'down');
    link.cut();
    await down;
    const up = once(reports, 'up');
    link.restore();
    await up;
    await stop();
    expect(states.slice(-2)).toEqual([false, true]);
  });
});
