import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { headers as newHeaders } from '@nats-io/transport-node';
import { HEADER, parseTopic, type Scope } from '@posthorn/contracts';
import {
  Collected,
  openBus,
  prepareBus,
  rawPublish,
  startNats,
  type TestBus,
  type TestNats,
} from '@posthorn/testing';
import type { BusEvent, LiveSubscription } from '../port.js';

let nats: TestNats;
let process: TestBus;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, {
    topics: [{ topic: 'prices', audience: 'acme', schema: { type: 'object', required: ['n'] } }],
  });
  process = await openBus(nats);
});

afterAll(async () => {
  await process[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});

const publish = (name: string, message: object = {}, scope: Scope = 'global') =>
  process.bus.publish({
    audience: 'acme',
    topic: parseTopic(name),
    scope,
    message,
    principal: 'p',
    source: 'test',
  });

interface Listening extends AsyncDisposable {
  readonly heard: Collected<BusEvent>;
  readonly live: LiveSubscription;
  /** Everything that was sent before this call has been heard or dropped. */
  settled(): Promise<void>;
}

async function listen(filter: string, scope: Scope = 'global'): Promise<Listening> {
  const heard = new Collected<BusEvent>();
  const live = process.bus.live({ audience: 'acme', scope, filter }, heard.add);
  await live.started;
  process.seen.dropped = [];
  process.seen.gaps = 0;
  return {
    heard,
    live,
    settled: () => process.nc.flush(),
    [Symbol.asyncDispose]: async () => live.close(),
  };
}

/** A copy as the stream would republish it, with whatever sequences one likes. */
function copy(topic: string, sequence: number, previous: number, payload: string | Uint8Array = '{}'): void {
  const { path } = parseTopic(topic);
  const headers = newHeaders();
  headers.set(HEADER.stream, 'PH_GLOBAL');
  headers.set(HEADER.subject, `ph.acme.global.${path}`);
  headers.set(HEADER.sequence, String(sequence));
  headers.set(HEADER.lastSequence, String(previous));
  process.nc.publish(`ph-live.acme.${path}`, payload, { headers });
}

describe('a live subscription', () => {
  it.each(['global', 'local'] as const)('hears what is stored on scope %s', async (scope) => {
    await using one = await listen('-.system.events', scope);
    const receipt = await publish('system:events', { n: 1 }, scope);
    const [event] = await one.heard.until(1);
    expect(event).toMatchObject({
      audience: 'acme',
      scope,
      instance: scope === 'local' ? 'main' : null,
      path: '-.system.events',
      topic: { name: 'system:events' },
      id: receipt.id,
      position: receipt.position,
      message: { n: 1 },
      kind: undefined,
    });
    expect(new TextDecoder().decode(event!.bytes)).toBe('{"n":1}');
  });

  it('keeps to its scope, instance, audience and filter', async () => {
    await using one = await listen('-.mine', 'local');
    const elsewhere = await openBus(nats, { instance: 'elsewhere' });
    const draft = {
      audience: 'acme',
      topic: parseTopic('mine'),
      message: {},
      principal: 'p',
      source: 'test',
    };
    await elsewhere.bus.publish({ ...draft, scope: 'local' });
    await publish('mine', {}, 'global');
    await publish('mine.too', {}, 'local');
    const { id } = await publish('mine', {}, 'local');
    expect((await one.heard.until(1)).map((event) => event.id)).toEqual([id]);
    await elsewhere[Symbol.asyncDispose]();
  });

  it('takes every topic of a pattern, each in its own order', async () => {
    await using one = await listen('*.personal');
    const message = (username: string) => ({ username, title: 't', message: 'm' });
    for (const user of ['alice', 'bob.*', 'alice']) await publish(`personal.${user}`, message(user));
    const events = await one.heard.until(3);
    expect(events.map(({ topic }) => topic.name)).toEqual([
      'personal.alice',
      'personal.bob.*',
      'personal.alice',
    ]);
  });

  it('stops at once, also in the midst of what has come already', async () => {
    const heard = new Collected<BusEvent>();
    const live = process.bus.live({ audience: 'acme', scope: 'global', filter: '-.stop' }, (event) => {
      heard.add(event);
      live.close();
    });
    await live.started;
    await Promise.all([1, 2, 3].map((n) => publish('stop', { n })));
    await process.nc.flush();
    expect(heard.items.map(({ message }) => message)).toEqual([{ n: 1 }]);
  });

  it('closed before it began delivers nothing', async () => {
    const heard = new Collected<BusEvent>();
    const live = process.bus.live({ audience: 'acme', scope: 'global', filter: '-.stop' }, heard.add);
    live.close();
    await live.started;
    await publish('stop');
    await process.nc.flush();
    expect(heard.items).toEqual([]);
  });

  it('goes on when a handler throws, and says so', async () => {
    let calls = 0;
    const live = process.bus.live({ audience: 'acme', scope: 'global', filter: '-.throws' }, () => {
      calls += 1;
      throw new Error('a mistake');
    });
    await live.started;
    await using other = await listen('-.throws');
    await publish('throws');
    await publish('throws');
    await other.heard.until(2);
    live.close();
    expect(calls).toBe(2);
    expect(process.seen.log).toContainEqual({
      message: 'a live handler threw',
      fields: { path: '-.throws', error: 'Error: a mistake' },
    });
  });
});

describe('copies out of order', () => {
  it('that are late or doubled are dropped', async () => {
    await using one = await listen('-.forged');
    const { sequence } = await one.live.started;
    const at = (n: number) => sequence + n;
    copy('forged', at(1), 0);
    copy('forged', at(1), 0);
    copy('forged', at(3), at(1));
    copy('forged', at(2), at(1));
    expect([one.heard.items.length, process.seen.gaps]).toEqual([0, 0]);
    await one.settled();
    expect(one.heard.items.map(({ position }) => position.sequence - sequence)).toEqual([1, 3]);
    expect(process.seen).toMatchObject({ gaps: 0, dropped: ['late', 'late'] });
  });

  it('are told apart by topic', async () => {
    await using one = await listen('-.forged.*');
    const { sequence } = await one.live.started;
    copy('forged.a', sequence + 5, 0);
    copy('forged.b', sequence + 3, 0);
    await one.settled();
    expect(one.heard.items).toHaveLength(2);
    expect(process.seen).toMatchObject({ gaps: 0, dropped: [] });
  });

  it('are held against the beginning when they are the first', async () => {
    await publish('first');
    await using one = await listen('-.first.*');
    const { sequence } = await one.live.started;
    copy('first.a', sequence, 0);
    copy('first.c', sequence + 3, sequence);
    await one.settled();
    expect(one.heard.items.map(({ topic }) => topic.name)).toEqual(['first/c']);
    expect(process.seen).toMatchObject({ gaps: 0, dropped: ['late'] });
  });
});

describe('what is forged', () => {
  it('in the headers of a publish changes neither place nor topic', async () => {
    await using one = await listen('-.mine');
    const headers = newHeaders();
    headers.set(HEADER.sequence, '1');
    headers.set(HEADER.lastSequence, '999999');
    headers.set(HEADER.stream, 'OTHER');
    headers.set(HEADER.subject, 'ph.beta.global.-.other');
    headers.set(HEADER.topic, 'personal.alice');
    headers.set(HEADER.kind, 'urgent');
    headers.set(HEADER.id, 'x'.repeat(300));
    const { seq } = await process.bus.js.publish('ph.acme.global.-.mine', '{"n":1}', { headers });
    const [event] = await one.heard.until(1);
    expect(event).toMatchObject({
      audience: 'acme',
      topic: { name: 'mine' },
      position: { sequence: seq },
      id: `${event!.position.epoch}-${seq}`,
      kind: undefined,
    });
    expect(process.seen).toMatchObject({ gaps: 0, dropped: [] });
  });

  it('is dropped where the expected stream did not make the copy', async () => {
    await using one = await listen('-.mine');
    const { sequence } = await one.live.started;
    const good = {
      [HEADER.stream]: 'PH_GLOBAL',
      [HEADER.subject]: 'ph.acme.global.-.mine',
      [HEADER.sequence]: String(sequence + 1),
      [HEADER.lastSequence]: '0',
    };
    const bad: Record<string, string>[] = [
      {},
      { ...good, [HEADER.stream]: 'PH_LOCAL' },
      { ...good, [HEADER.subject]: 'ph.acme.global.-.other' },
      { ...good, [HEADER.sequence]: '0' },
      { ...good, [HEADER.sequence]: '-1' },
      { ...good, [HEADER.sequence]: '1e3' },
      { ...good, [HEADER.sequence]: '99999999999999999999' },
      { ...good, [HEADER.lastSequence]: '' },
      { ...good, [HEADER.lastSequence]: 'NaN' },
    ];
    for (const fields of bad) {
      const headers = newHeaders();
      for (const [name, value] of Object.entries(fields)) headers.set(name, value);
      process.nc.publish('ph-live.acme.-.mine', '{}', { headers });
    }
    process.nc.publish('ph-live.acme.-.mine', '{}');
    await one.settled();
    expect(one.heard.items).toEqual([]);
    expect(process.seen.dropped).toEqual(Array(bad.length + 1).fill('unsequenced'));
  });

  it('and cannot even be read ends neither the subscription nor the connection', async () => {
    await using one = await listen('-.mine');
    for (const line of ['Bad Name: x', 'X: a\nb', 'Ünicode: x', 'X: a\rb']) {
      await rawPublish(nats, 'ph.acme.global.-.mine', `NATS/1.0\r\n${line}\r\n\r\n`, '{}');
      await rawPublish(nats, 'ph-live.acme.-.mine', `NATS/1.0\r\n${line}\r\n\r\n`, '{}');
    }
    const { id } = await publish('mine');
    await one.heard.until((events) => events.some((event) => event.id === id));
    expect(process.seen.dropped).toEqual(Array(8).fill('unsequenced'));
  });

  it.each<[reason: string, payload: string | Uint8Array]>([
    ['not_json', 'not json'],
    ['not_json', ''],
    ['not_json', '{"n":1'],
    ['not_json', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)],
    ['not_json', '\ufeff{}'],
    ['not_object', '[1]'],
    ['not_object', 'null'],
    ['not_object', '"text"'],
    ['not_object', '7'],
    ['schema', '{"m":1}'],
  ])('as a payload is dropped as %s: %j', async (reason, payload) => {
    await using one = await listen('-.prices');
    await process.bus.js.publish('ph.acme.global.-.prices', payload);
    await publish('prices', { n: 1 });
    expect((await one.heard.until(1)).map(({ message }) => message)).toEqual([{ n: 1 }]);
    expect(process.seen).toMatchObject({ gaps: 0, dropped: [reason] });
  });

  it('as a topic of the catalogue is held against its schema', async () => {
    await using one = await listen('*.personal');
    await process.bus.js.publish('ph.acme.global.bob.personal', '{"username":"bob"}');
    await one.settled();
    expect(process.seen.dropped).toEqual(['schema']);
  });

  it('as a subject that no topic has is dropped', async () => {
    await using one = await listen('>');
    for (const subject of ['bob.system', '-.personal', '-.=61', '=2d.a', '-.room.organization.a.b']) {
      await process.bus.js.publish(`ph.acme.global.${subject}`, '{}');
    }
    await one.settled();
    expect(one.heard.items).toEqual([]);
    expect(process.seen.dropped).toEqual(Array(5).fill('no_topic'));
  });
});
