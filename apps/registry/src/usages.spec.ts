import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { openDatabase } from '@posthorn/database';
import { createDatabase } from '@posthorn/testing';
import type { DataSource } from 'typeorm';
import { Audience } from './entities.js';
import { Registry1800000000000 } from './migrations/1800000000000-registry.js';
import { Usage1800000100000 } from './migrations/1800000100000-usage.js';
import { Usages } from './usages.js';

const QUOTA = { publishes: 100, bytes: null };
const TODAY = Math.floor(Date.now() / 86_400_000);

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;
let usages: Usages;

beforeAll(async () => {
  database = await createDatabase();
  source = await openDatabase({
    url: database.url,
    schema: 'registry',
    entities: [Audience],
    migrations: [Registry1800000000000, Usage1800000100000],
  });
  usages = new Usages(source, QUOTA);
}, 60_000);
afterAll(async () => {
  await source?.destroy();
  await database?.[Symbol.asyncDispose]();
});

/** An audience that nobody else has. */
async function audience(): Promise<string> {
  const name = `audience-${randomUUID()}`;
  await source.getRepository(Audience).insert({ name });
  return name;
}

/** A process that reports. */
function gateway(day = TODAY) {
  const process = randomUUID();
  return (audience: string, publishes: number, bytes: number) =>
    usages.report({ process, day, usage: [{ audience, publishes, bytes }] });
}

/** What everybody together has reported. */
async function total(audience: string, day = TODAY) {
  const { others } = await gateway(day)(audience, 0, 0);
  return others[0];
}

describe('usage', () => {
  it('is added up over processes, and each is told of the others', async () => {
    const name = await audience();
    const [first, second] = [gateway(), gateway()];
    expect(await first(name, 2, 200)).toEqual({
      quota: QUOTA,
      others: [{ audience: name, publishes: 0, bytes: 0 }],
    });
    expect((await second(name, 3, 300)).others).toEqual([{ audience: name, publishes: 2, bytes: 200 }]);
    expect((await first(name, 4, 400)).others).toEqual([{ audience: name, publishes: 3, bytes: 300 }]);
    expect(await total(name)).toEqual({ audience: name, publishes: 7, bytes: 700 });
  });

  it('counts a report once that comes twice, or late', async () => {
    const name = await audience();
    const report = gateway();
    await Promise.all([report(name, 5, 50), report(name, 3, 30), report(name, 5, 50), report(name, 5, 50)]);
    await report(name, 3, 30);
    expect(await total(name)).toEqual({ audience: name, publishes: 5, bytes: 50 });
  });

  it('is of one audience and one day', async () => {
    const [mine, other] = [await audience(), await audience()];
    const process = randomUUID();
    const usage = [
      { audience: mine, publishes: 1, bytes: 10 },
      { audience: other, publishes: 2, bytes: 20 },
    ];
    await usages.report({ process, day: TODAY, usage });
    expect(await total(mine)).toMatchObject({ publishes: 1, bytes: 10 });
    expect(await total(other)).toMatchObject({ publishes: 2, bytes: 20 });
    expect(await total(mine, TODAY + 1)).toMatchObject({ publishes: 0, bytes: 0 });
  });

  it('is exact beyond 32 bits', async () => {
    const name = await audience();
    await gateway()(name, 2 ** 32, 2 ** 50);
    await gateway()(name, 1, 1);
    expect(await total(name)).toMatchObject({ publishes: 2 ** 32 + 1, bytes: 2 ** 50 + 1 });
  });

  it('of an audience that does not exist is left out, and the rest of the report counts', async () => {
    const name = await audience();
    const usage = ['nobody', name].map((one) => ({ audience: one, publishes: 1, bytes: 1 }));
    const { others } = await usages.report({ process: randomUUID(), day: TODAY, usage });
    expect(others.map((one) => one.audience)).toEqual([name]);
    expect(await total(name)).toMatchObject({ publishes: 1 });
  });

  it('is forgotten two days later', async () => {
    const name = await audience();
    for (const day of [TODAY - 30, TODAY - 2, TODAY - 1, TODAY]) await gateway(day)(name, 1, 1);
    await usages.forget();
    const counts = [];
    for (const day of [TODAY - 30, TODAY - 2, TODAY]) counts.push((await total(name, day))?.publishes);
    expect(counts).toEqual([0, 0, 1]);
    expect((await total(name, TODAY - 1))?.publishes).toBe(1);
  });
});
