import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstream } from '@nats-io/jetstream';
import { headers } from '@nats-io/transport-node';
import { PermanentFailure } from '@posthorn/bus';
import { DEAD_HEADER, storeRedrive } from '@posthorn/bus/platform';
import {
  asProblem,
  DEAD_LETTER_CALLS,
  type DeadLetterItem,
  type DeadLetterPage,
  type DeadLetterView,
  type ListDeadLettersRequest,
  type RedriveReply,
  STREAMS,
} from '@posthorn/contracts';
import { eventually } from '@posthorn/testing';
import { CONSUMER, type Environment, type Replica, startEnvironment } from '../../test/environment.js';

const ODD = ['*', '>', 'a', 'a.b', 'a-b', 'ü', '-', '=2A', 'A', 'a b'];
const request = (community: string, author = 'ann') => ({ author, target: 'tom', community });

let env: Environment;
let replica: Replica;

beforeAll(async () => {
  env = await startEnvironment(['acme', 'globex', ...ODD]);
  replica = env.replica();
  await replica.started;
});
afterEach(() => env.clear());
afterAll(() => env[Symbol.asyncDispose]());

const list = (more: Partial<ListDeadLettersRequest> = {}): Promise<DeadLetterPage> =>
  env.rpc.call(DEAD_LETTER_CALLS.list, { audience: 'acme', limit: 100, ...more });
const show = (id: string, audience = 'acme'): Promise<DeadLetterView> =>
  env.rpc.call(DEAD_LETTER_CALLS.show, { audience, id });
const redrive = (id: string, audience = 'acme'): Promise<RedriveReply> =>
  env.rpc.call(DEAD_LETTER_CALLS.redrive, { audience, id });
const redriveAll = (more: object = {}): Promise<RedriveReply> =>
  env.rpc.call(DEAD_LETTER_CALLS.redriveAll, { audience: 'acme', ...more });
const remove = (id: string, audience = 'acme'): Promise<null> =>
  env.rpc.call(DEAD_LETTER_CALLS.delete, { audience, id });

/** The letters of an audience, once there are that many. */
async function letters(count: number, audience = 'acme'): Promise<readonly DeadLetterItem[]> {
  let items: readonly DeadLetterItem[] = [];
  await eventually(async () => {
    try {
      ({ items } = await list({ audience }));
    } catch (error) {
      // While large letters are being listed, the notifier in this process may not answer in time.
      if (asProblem(error).code !== 'unavailable') throw error;
    }
    return items.length >= count;
  });
  expect(items).toHaveLength(count);
  return items;
}

/** Events that no schema takes: each becomes a dead letter of the worker, and does so again when redriven. */
async function publishBad(count: number, audience = 'acme'): Promise<readonly DeadLetterItem[]> {
  for (let n = 0; n < count; n++) {
    await env.publishRaw('notification:external', `{"n":${n}}`, { audience, id: `bad-${n}` });
  }
  return letters(count, audience);
}

const states = async () =>
  (await env.query<{ state: string }>('SELECT state FROM notifier.dead_letter ORDER BY stored_at')).map(
    ({ state }) => state,
  );

/** What `PH_DEAD` holds on a subject. */
const stored = async (filter: string): Promise<number> => {
  const { state } = await env.jsm.streams.info(STREAMS.dead.name, { subjects_filter: filter });
  return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0);
};

const projected = () =>
  eventually(async () => {
    const info = await env.jsm.consumers.info(STREAMS.dead.name, 'dead-letters-main').catch(() => undefined);
    return info !== undefined && info.num_pending + info.num_ack_pending === 0;
  });

/** Resolves once every redrive was taken, and every event that it brought handled or given up. */
const redriven = () =>
  eventually(async () => {
    const { num_pending, num_ack_pending } = await env.jsm.consumers.info(
      STREAMS.dead.name,
      `local-${CONSUMER}`,
    );
    return num_pending + num_ack_pending === 0 && !(await states()).includes('redriving');
  });

describe('a dead letter', () => {
  it('is listed with the reason, and shown with all of its event', async () => {
    await env.publishRaw('notification:external', '{"target":"tom","secret":1}', {
      id: 'e1',
      headers: { Authorization: 'Bearer abc', 'ce-source': 'spec', 'X-Api-Key': 'abc' },
    });
    const [letter] = await letters(1);
    expect(letter).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      consumer: CONSUMER,
      code: 'payload_invalid',
      reason: expect.stringContaining('/action is required'),
      tries: 1,
      redrives: 0,
      time: expect.any(String),
      event: {
        id: 'e1',
        topic: 'notification:external',
        scope: 'local',
        source: 'spec',
        time: expect.any(String),
        position: expect.stringMatching(/^[0-9a-z]+-\d+$/),
      },
    });
    expect(Math.abs(Date.parse(letter!.time) - Date.now())).toBeLessThan(60_000);
    expect(await show(letter!.id)).toEqual({
      ...letter,
      event: {
        ...letter!.event,
        headers: { 'ce-id': 'e1', 'ce-source': 'spec' },
        payload: { target: 'tom', secret: 1 },
      },
    });
  });

  it.each([
    ['is not UTF-8', Uint8Array.of(0xff, 0x7b), { payload_base64: '/3s=' }],
    ['is not JSON', 'no', { payload_base64: 'bm8=' }],
    [
      'is nested too deeply',
      `${'['.repeat(5_000)}${']'.repeat(5_000)}`,
      { payload_base64: expect.any(String) },
    ],
    ['grows as JSON', `[${'1e20,'.repeat(200_000)}1]`, { payload_base64: expect.any(String) }],
    ['is empty', '', { payload_base64: '' }],
    ['is no object', '[1]', { payload: [1] }],
  ])('is shown where its payload %s', async (_, payload, shown) => {
    await env.publishRaw('notification:external', payload);
    const [letter] = await letters(1);
    expect((await show(letter!.id)).event).toMatchObject(shown);
  });

  it('is listed page by page, the oldest first, by consumer and by code', async () => {
    const all = await publishBad(7);
    await env.pubsub().local.topic('community:membership:request').publish(request('unknown'));
    await letters(8);
    const pages: DeadLetterItem[][] = [];
    let cursor: string | null | undefined;
    do {
      const page = await list({ limit: 3, ...(cursor ? { cursor } : {}) });
      pages.push([...page.items]);
      cursor = page.next_cursor;
    } while (cursor);
    expect(pages.map(({ length }) => length)).toEqual([3, 3, 2]);
    expect(pages.flat().slice(0, 7)).toEqual(all);
    const codes = async (more: object) => (await list(more)).items.map(({ code }) => code);
    expect(await codes({ code: 'managers_unknown' })).toEqual(['managers_unknown']);
    expect(await codes({ consumer: CONSUMER, code: 'payload_invalid' })).toHaveLength(7);
    expect(await codes({ consumer: 'notifier' })).toEqual([]);
    for (const bad of ['x', 'MTox', Buffer.from('1:not-an-id').toString('base64url')]) {
      await expect(list({ cursor: bad })).rejects.toMatchObject({ code: 'request_invalid' });
    }
  });

  it.each([
    ['a NUL in a header', { 'ce-source': 'a\0b', 'X-Other': '\0' }, 'a\0b'],
    ['a source of 60 KiB', { 'ce-source': 's'.repeat(60 * 1024) }, 's'.repeat(255)],
    [
      'a source cut within a character',
      { 'ce-source': `${'s'.repeat(254)}😀` },
      `${'s'.repeat(254)}\u{fffd}`,
    ],
  ])('is listed, shown and redriven with %s', async (_, set, source) => {
    await env.publishRaw('notification:external', 'no', { id: 'odd', headers: set });
    const [letter] = await letters(1);
    expect(letter!.event.source).toBe(source);
    expect((await show(letter!.id)).event.headers['ce-source']).toBe(set['ce-source']);
    await redrive(letter!.id);
    await eventually(async () => (await list()).items.some(({ redrives }) => redrives === 1));
    expect((await show(letter!.id)).event.headers['ce-source']).toBe(set['ce-source']);
  });

  it('is listed with a hundred others, whatever their publishers have called themselves', async () => {
    const source = '\u0001'.repeat(60 * 1024);
    for (let n = 0; n < 100; n++) {
      await env.publishRaw('notification:external', 'no', { id: `n${n}`, headers: { 'ce-source': source } });
    }
    const [letter] = await letters(100);
    expect((await show(letter!.id)).event.headers['ce-source']).toBe(source);
  });

  it('is listed whatever its texts hold', async () => {
    const forged = headers();
    const fields = {
      [DEAD_HEADER.consumer]: 'x',
      [DEAD_HEADER.code]: 'c\0',
      [DEAD_HEADER.reason]: `${'r'.repeat(998)}\0😀`,
      [DEAD_HEADER.tries]: '1',
      [DEAD_HEADER.subject]: 'ph.acme.local.main.=00.personal',
      [DEAD_HEADER.stream]: 'PH_LOCAL',
      [DEAD_HEADER.sequence]: '1',
      [DEAD_HEADER.time]: new Date().toISOString(),
    };
    for (const [name, value] of Object.entries(fields)) forged.set(name, value);
    await jetstream(env.link.connection).publish('ph-dead.x', '{}', { headers: forged });
    expect(await letters(1)).toMatchObject([
      {
        code: 'c\u{fffd}',
        reason: `${'r'.repeat(998)}\u{fffd}\u{fffd}`,
        event: { topic: 'personal.\u{fffd}' },
      },
    ]);
  });

  it('that is redriven and fails again is the same letter', async () => {
    const [letter] = await publishBad(1);
    for (const redrives of [1, 2]) {
      expect(await redrive(letter!.id)).toEqual({ redriving: 1 });
      await eventually(async () => (await list()).items[0]?.redrives === redrives);
      expect((await list()).items).toEqual([{ ...letter, redrives, time: expect.any(String) }]);
    }
    expect((await show(letter!.id)).event.payload).toEqual({ n: 0 });
    expect(await stored('ph-redrive.>')).toBe(2);
  });

  it('that is redriven and handled is gone, and so is one that is deleted', async () => {
    const handled: unknown[] = [];
    let failing = true;
    const { local } = env.pubsub();
    const handler = async (data: unknown) => {
      if (failing) throw new PermanentFailure('refused', 'as told');
      handled.push(data);
    };
    const subscription = local.topic('login:success').subscribe(handler, { durable: 'logins' });
    await subscription.ready;
    for (const user of ['ann', 'tom']) await local.topic('login:success').publish({ user });
    const [ann, tom] = await letters(2);
    failing = false;
    await redrive(ann!.id);
    await eventually(() => handled.length === 1);
    await remove(tom!.id);
    expect((await list()).items).toEqual([]);
    for (const { id } of [ann!, tom!]) {
      await expect(show(id)).rejects.toMatchObject({ code: 'dead_letter_not_found' });
      await expect(remove(id)).rejects.toMatchObject({ code: 'dead_letter_not_found' });
    }
    await eventually(async () => (await states())[0] === 'redriven');
    expect(await redrive(ann!.id)).toEqual({ redriving: 0 });
    await expect(redrive(tom!.id)).rejects.toMatchObject({ code: 'dead_letter_not_found' });
    const kept = await env.query('SELECT headers, payload FROM notifier.dead_letter');
    expect(kept).toEqual(Array(2).fill({ headers: null, payload: null }));
    expect(handled).toEqual([{ user: 'ann' }]);
    await subscription.close();
  });

  it('does not come back when its message is delivered again', async () => {
    const [first, second, third] = await publishBad(3);
    await remove(first!.id);
    await redrive(second!.id);
    await eventually(async () => (await list()).items.some(({ redrives }) => redrives === 1));
    await remove(second!.id);
    await replica.stop();
    await env.jsm.consumers.delete(STREAMS.dead.name, 'dead-letters-main');
    replica = env.replica();
    await replica.started;
    await projected();
    expect((await list()).items).toEqual([third]);
  });

  it('is listed while the messages of others cannot be read', async () => {
    const js = jetstream(env.link.connection);
    const forge = (subject: string, set: Record<string, string>) => {
      const forged = headers();
      for (const [name, value] of Object.entries(set)) forged.set(name, value);
      return js.publish(subject, '{}', { headers: forged });
    };
    const good = {
      [DEAD_HEADER.consumer]: 'x',
      [DEAD_HEADER.code]: 'c',
      [DEAD_HEADER.reason]: 'r',
      [DEAD_HEADER.tries]: '1',
      [DEAD_HEADER.subject]: 'ph.acme.local.main.-.a',
      [DEAD_HEADER.stream]: 'PH_LOCAL',
      [DEAD_HEADER.sequence]: '1',
      [DEAD_HEADER.stored]: '1',
      [DEAD_HEADER.time]: new Date().toISOString(),
    };
    await js.publish('ph-dead.x', 'nothing');
    await forge('ph-dead.y', good);
    await forge('ph-dead.x', { ...good, [DEAD_HEADER.sequence]: '-1' });
    await forge('ph-dead.x', { ...good, [DEAD_HEADER.stored]: '9999999999999999999' });
    await forge('ph-dead.x', { ...good, [DEAD_HEADER.subject]: `ph.${'a'.repeat(3_700)}.local.main.-.a` });
    await forge('ph-dead.x', { ...good, [DEAD_HEADER.subject]: 'ph.acme.local.elsewhere.-.a' });
    await forge('ph-dead.x', { ...good, [DEAD_HEADER.sequence]: '2' });
    const [letter] = await letters(1);
    expect(letter).toMatchObject({ consumer: 'x', event: { topic: 'a', position: null, source: null } });
    await projected();
  });

  it('of a worker that handles events of several audiences together does not say what broke in it', async () => {
    const forged = headers();
    const fields = {
      [DEAD_HEADER.consumer]: CONSUMER,
      [DEAD_HEADER.code]: 'tries_exhausted',
      [DEAD_HEADER.reason]: 'duplicate key (globex, secret)',
      [DEAD_HEADER.tries]: '6',
      [DEAD_HEADER.subject]: 'ph.acme.local.main.-.a',
      [DEAD_HEADER.stream]: 'PH_LOCAL',
      [DEAD_HEADER.sequence]: '1',
      [DEAD_HEADER.time]: new Date().toISOString(),
    };
    for (const [name, value] of Object.entries(fields)) forged.set(name, value);
    await jetstream(env.link.connection).publish(`ph-dead.${CONSUMER}`, '{}', { headers: forged });
    const [letter] = await letters(1);
    expect(letter!.reason).toBe('The platform failed at it each time; its log says why');
    expect(replica.lines).toContainEqual(
      expect.objectContaining({ letter: letter!.id, reason: 'duplicate key (globex, secret)' }),
    );
  });

  it('of an audience is nobody else’s, whatever they are called', async () => {
    const of = new Map<string, DeadLetterItem>();
    for (const audience of ODD) of.set(audience, (await publishBad(1, audience))[0]!);
    const unknown = await show('00000000-0000-8000-8000-000000000000').catch((error: Error) => error);
    for (const audience of ODD) {
      for (const [owner, { id }] of of) {
        if (owner === audience) continue;
        for (const call of [show, redrive, remove]) await expect(call(id, audience)).rejects.toEqual(unknown);
      }
      expect(await letters(1, audience)).toEqual([of.get(audience)]);
    }
    expect(await redriveAll({ audience: '*' })).toEqual({ redriving: 1 });
    await eventually(async () => (await list({ audience: '*' })).items[0]?.redrives === 1);
    for (const audience of ODD.slice(1)) expect(await letters(1, audience)).toEqual([of.get(audience)]);
    for (const id of ['', 'x', '*', "'", of.get('a')!.id.toUpperCase()]) {
      await expect(show(id, 'a')).rejects.toMatchObject({ code: 'dead_letter_not_found' });
    }
  });
});

describe('all dead letters', () => {
  it('are redriven, or those of a consumer and a code', async () => {
    await publishBad(5);
    await env.pubsub().local.topic('community:membership:request').publish(request('unknown'));
    await letters(6);
    expect(await redriveAll({ code: 'managers_unknown', consumer: CONSUMER })).toEqual({ redriving: 1 });
    expect(await redriveAll({ consumer: 'nobody' })).toEqual({ redriving: 0 });
    await redriven();
    await projected();
    expect((await letters(6)).map(({ redrives }) => redrives)).toEqual([0, 0, 0, 0, 0, 1]);
    expect(await redriveAll()).toEqual({ redriving: 6 });
    await redriven();
    await projected();
    expect((await letters(6)).map(({ redrives }) => redrives).sort()).toEqual([1, 1, 1, 1, 1, 2]);
  });

  it('of one audience do not keep another waiting', async () => {
    const [letter] = await publishBad(1, 'globex');
    await env.query(
      `INSERT INTO notifier.dead_letter (id, audience, consumer, code, reason, tries, redrives, subject, topic,
         event_id, stream, epoch, sequence, stored_at, died_at, headers, payload, state)
       SELECT gen_random_uuid(), 'acme', 'nobody', 'c', 'r', 1, 0, 'ph.acme.local.main.-.a', 'a', 'e', 'PH_LOCAL', 'x',
         i, 0, extract(epoch FROM now())::bigint * 1000000000 + i, '[]', '', 'waiting'
       FROM generate_series(1, 5000) i`,
    );
    expect(await redriveAll()).toEqual({ redriving: 5_000 });
    await redrive(letter!.id, 'globex');
    await eventually(async () => (await list({ audience: 'globex' })).items[0]?.redrives === 1);
    expect((await states()).filter((state) => state === 'redriving').length).toBeGreaterThan(0);
    await eventually(async () => !(await states()).includes('redriving'));
    expect(await stored('ph-redrive.local.nobody.>')).toBe(5_000);
  });

  it('are redriven by the heir of a process that died before it had done so, and once', async () => {
    const [first, second] = await publishBad(2);
    await replica.stop();
    const [letter] = (await env.deadLetters()).filter(({ eventId }) => eventId === second!.event.id);
    // The first was marked, and no more; the second was published too.
    await env.query(`UPDATE notifier.dead_letter SET state = 'redriving'`);
    await storeRedrive(jetstream(env.link.connection), letter!);
    replica = env.replica();
    await replica.started;
    await eventually(async () => (await list()).items.filter(({ redrives }) => redrives === 1).length === 2);
    await redriven();
    await projected();
    expect(new Set((await list()).items.map(({ id }) => id))).toEqual(new Set([first!.id, second!.id]));
    expect(await stored('ph-redrive.>')).toBe(2);
    expect(await stored('ph-dead.>')).toBe(4);
  });
});

describe('an event whose community has no known managers', () => {
  const publish = (community: string, author?: string) =>
    env.pubsub().local.topic('community:membership:request').publish(request(community, author));
  const told = async () =>
    (await env.created()).map(({ target, complement }) => `${target} ${complement.id}`);

  it('waits as a dead letter, and is handled when they are set', async () => {
    await publish('chess');
    await publish('go');
    const [letter] = await letters(2);
    expect(letter).toMatchObject({
      code: 'managers_unknown',
      reason: 'The managers of the community "chess" are not known',
    });
    await env.setManagers('chess', ['max'], 'globex');
    await env.setManagers('chess', ['max', 'mia']);
    await eventually(async () => (await told()).length === 2);
    expect((await told()).sort()).toEqual(['max chess', 'mia chess']);
    expect((await letters(1))[0]!.reason).toContain('"go"');
    await env.setManagers('go', []);
    await eventually(async () => (await list()).items.length === 0);
    await redriven();
    expect(await told()).toHaveLength(2);
  });

  it('is handled once, whether they are set before, after or while it is given up', async () => {
    const communities = Array.from({ length: 60 }, (_, i) => `c${i}*.>💌`);
    await Promise.all(
      communities.map(async (community, i) => {
        const set = async () => {
          await new Promise((resolve) => setTimeout(resolve, i));
          await env.setManagers(community, ['max']);
        };
        await Promise.all(
          i % 2 ? [publish(community), set()] : [set(), publish(community), publish(community, 'eve')],
        );
      }),
    );
    await env.settled();
    await projected();
    await eventually(async () => (await told()).length >= 90);
    await redriven();
    expect(await told()).toHaveLength(90);
    expect((await list()).items).toEqual([]);
  });

  it('and that was redriven by hand too soon is handled when they are set', async () => {
    await publish('chess');
    const [letter] = await letters(1);
    await redrive(letter!.id);
    await eventually(async () => (await list()).items[0]?.redrives === 1);
    await env.setManagers('chess', ['max']);
    await eventually(async () => (await told()).length === 1);
    expect((await list()).items).toEqual([]);
  });

  it('is handled when they were set while no notifier ran that knew of the letter', async () => {
    await publish('chess');
    await letters(1);
    await replica.stop();
    await env.query(
      `INSERT INTO notifier.community (audience, id, managers) VALUES ('acme', 'chess', '{max}')`,
    );
    replica = env.replica();
    await replica.started;
    await eventually(async () => (await told()).length === 1);
    expect((await list()).items).toEqual([]);
  });

  it('is not redriven over and over where the worker fails at it all the same', async () => {
    await env.publishRaw('notification:external', '{}', { id: 'bad' });
    await letters(1);
    await env.query(`UPDATE notifier.dead_letter SET waits_for = 'chess', code = 'managers_unknown'`);
    await env.setManagers('chess', ['max']);
    await eventually(async () => (await list()).items[0]?.redrives === 1);
    await env.query(`UPDATE notifier.dead_letter SET waits_for = 'chess', code = 'managers_unknown'`);
    await env.setManagers('chess', ['max']);
    await redriven();
    await projected();
    expect(await letters(1)).toMatchObject([{ redrives: 1 }]);
  });
});

it('counts what waits and what was redriven', async () => {
  const [letter] = await publishBad(2);
  await redrive(letter!.id);
  await redriven();
  await projected();
  await eventually(async () => {
    // Has it look again: a letter is listed a moment before its message is acknowledged.
    await redriveAll({ consumer: 'nobody' });
    const { body } = await replica.metrics.exposition();
    const listed = /posthorn_dead_letters_unlisted\{app="notifier"\} 0$/m.test(body);
    return listed && /posthorn_dead_letters_waiting\{app="notifier"\} 2$/m.test(body);
  });
  const { body } = await replica.metrics.exposition();
  expect(body).toMatch(/posthorn_dead_letters_redriven_total\{app="notifier"\} [1-9]/);
});

it('forgets dead letters that their stream has dropped', async () => {
  const [old, young] = await publishBad(2);
  const days = (count: number) => String(BigInt(Date.now() - count * 86_400_000) * 1_000_000n);
  await env.query('UPDATE notifier.dead_letter SET died_at = $1 WHERE id = $2', [days(32), old!.id]);
  await env.query('UPDATE notifier.dead_letter SET died_at = $1 WHERE id = $2', [days(30), young!.id]);
  await redriveAll({ consumer: 'nobody' });
  await eventually(async () => (await states()).length === 1);
  expect((await list()).items.map(({ id }) => id)).toEqual([young!.id]);
});
