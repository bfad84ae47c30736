import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createDatabase, freePort, type TestDatabase } from '@posthorn/testing';
import { DataSource } from 'typeorm';
import { isConflict, isUnavailable } from './failure.js';
import { withTransaction } from './transaction.js';

let database: TestDatabase;
let source: DataSource;

beforeAll(async () => {
  database = await createDatabase();
  source = await new DataSource({ type: 'postgres', url: database.url, poolSize: 5 }).initialize();
  await source.query('CREATE TABLE account (id int PRIMARY KEY, balance int)');
  await source.query('INSERT INTO account VALUES (1, 100), (2, 100)');
});

afterAll(async () => {
  await source.destroy();
  await database[Symbol.asyncDispose]();
});

async function failureOf(action: Promise<unknown>): Promise<unknown> {
  return action.then(
    () => {
      throw new Error('it worked');
    },
    (error: unknown) => error,
  );
}

describe('isUnavailable', () => {
  it('is true for a server that refuses connections', async () => {
    const url = `postgres://nobody:nothing@localhost:${await freePort()}/none`;
    const nowhere = new DataSource({ type: 'postgres', url });
    expect(isUnavailable(await failureOf(nowhere.initialize()))).toBe(true);
  });

  it('is true for a session that the administrator ended', async () => {
    const runner = source.createQueryRunner();
    const [{ pid }] = await runner.query('SELECT pg_backend_pid() AS pid');
    const sleeping = failureOf(runner.query('SELECT pg_sleep(20)'));
    await source.query('SELECT pg_terminate_backend($1)', [pid]);
    expect(isUnavailable(await sleeping)).toBe(true);
    await runner.release();
  });

  it('is true for a statement that took too long', async () => {
    const slow = withTransaction(source, async (manager) => {
      await manager.query(`SET LOCAL statement_timeout = '20ms'`);
      await manager.query('SELECT pg_sleep(5)');
    });
    expect(isUnavailable(await failureOf(slow))).toBe(true);
  });

  it('is false for a mistake of ours', async () => {
    expect(isUnavailable(await failureOf(source.query('SELECT nonsense')))).toBe(false);
    expect(isUnavailable(new Error('something else'))).toBe(false);
    expect(isUnavailable('a text')).toBe(false);
  });
});

describe('withTransaction', () => {
  it('commits what resolves and rolls back what rejects', async () => {
    await withTransaction(source, (manager) => manager.query('UPDATE account SET balance = 90 WHERE id = 1'));
    const failure = withTransaction(source, async (manager) => {
      await manager.query('UPDATE account SET balance = 0 WHERE id = 1');
      throw new Error('changed my mind');
    });
    await expect(failure).rejects.toThrow('changed my mind');
    expect(await source.query('SELECT balance FROM account WHERE id = 1')).toEqual([{ balance: 90 }]);
  });

  it('runs the loser of a deadlock again', async () => {
    await source.query('UPDATE account SET balance = 0');
    let arrived = 0;
    let meet = () => {};
    const both = new Promise<void>((resolve) => {
      meet = resolve;
    });
    let runs = 0;
    const transfer = (first: number, second: number) =>
      withTransaction(source, async (manager) => {
        runs += 1;
        await manager.query('UPDATE account SET balance = balance + 1 WHERE id = $1', [first]);
        arrived += 1;
        if (arrived === 2) meet();
        await both;
        await manager.query('UPDATE account SET balance = balance + 1 WHERE id = $1', [second]);
      });
    await Promise.all([transfer(1, 2), transfer(2, 1)]);
    expect(runs).toBeGreaterThan(2);
    expect(await source.query('SELECT balance FROM account ORDER BY id')).toEqual([
      { balance: 2 },
      { balance: 2 },
    ]);
  });

  it('gives up on conflicts after its attempts', async () => {
    let runs = 0;
    const conflict = Object.assign(new Error('could not serialize access'), { code: '40001' });
    const failure = await failureOf(
      withTransaction(
        source,
        async () => {
          runs += 1;
          throw conflict;
        },
        { attempts: 2, isolation: 'SERIALIZABLE' },
      ),
    );
    expect(runs).toBe(2);
    expect(isConflict(failure)).toBe(true);
  });
});
