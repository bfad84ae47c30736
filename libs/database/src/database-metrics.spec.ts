import { describe, expect, it } from '@jest/globals';
import { Metrics } from '@posthorn/service';
import { createDatabase } from '@posthorn/testing';
import { openDatabase } from './data-source.js';
import { DatabaseMetrics } from './database-metrics.js';

async function pool(metrics: Metrics) {
  const { body } = await metrics.exposition();
  const value = (series: string) =>
    Number(
      body
        .split('\n')
        .find((line) => line.startsWith(`posthorn_database_${series}`))
        ?.split(' ')
        .at(-1),
    );
  return {
    inUse: value('connections{state="in_use"'),
    idle: value('connections{state="idle"'),
    limit: value('connections_limit'),
    waiting: value('waiting'),
  };
}

describe('DatabaseMetrics', () => {
  it('tells of no connection before there is a database', async () => {
    const metrics = new Metrics('auth');
    new DatabaseMetrics(metrics);
    expect(await pool(metrics)).toEqual({ inUse: 0, idle: 0, limit: 0, waiting: 0 });
  });

  it('tells how many connections of the pool are in use, how many are idle, and who waits for one', async () => {
    await using database = await createDatabase();
    const metrics = new Metrics('auth');
    const source = await openDatabase({ url: database.url, schema: 'demo', entities: [], poolSize: 2 });
    try {
      new DatabaseMetrics(metrics).follow(source);
      const runners = [source.createQueryRunner(), source.createQueryRunner()];
      for (const runner of runners) await runner.connect();
      const waiting = source.query('SELECT 1');
      expect(await pool(metrics)).toEqual({ inUse: 2, idle: 0, limit: 2, waiting: 1 });
      await runners[0]?.release();
      await waiting;
      expect(await pool(metrics)).toEqual({ inUse: 1, idle: 1, limit: 2, waiting: 0 });
      await runners[1]?.release();
      expect(await pool(metrics)).toEqual({ inUse: 0, idle: 2, limit: 2, waiting: 0 });
    } finally {
      await source.destroy();
    }
  });
});
