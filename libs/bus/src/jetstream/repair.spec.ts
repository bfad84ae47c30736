import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { headers as newHeaders } from '@nats-io/transport-node';
import { HEADER, parseTopic, STREAMS } from '@posthorn/contracts';
import {
  Collected,
  openBus,
  prepareBus,
  startNats,
  startTcpProxy,
  type TestBus,
  type TestNats,
} from '@posthorn/testing';
import type { BusEvent } from '../port.js';

let nats: TestNats;
let process: TestBus;
let topics = 0;
let name: string;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, { republish: false });
  process = await openBus(nats);
});
afterAll(async () => {
  await process[Symbol.asyncDispose]();
  await nats[Symbol.asyncDispose]();
});
beforeEach(() => {
  name = `t${++topics}`;
  process.seen.dropped = [];
  process.seen.gaps = 0;
});

/** Stores an event; its copy is sent only when the test says so. */
async function store(n: number): Promise<{ n: number; sequence: number }> {
  const { position } = await process.bus.publish({
    audience: 'acme',
    topic: parseTopic(name),
    scope: 'global',
    message: { n },
    principal: 'p',
    source: 'test',
  });
  return { n, sequence: position!.sequence };
}

/** Sends the copy of a stored event, as the stream would. */
function copy({ n, sequence }: { n: number; sequence: number }, previous: number): void {
  const headers = newHeaders();
  headers.set(HEADER.stream, STREAMS.global.name);
  headers.set(HEADER.subject, `ph.acme.global.-.${name}`);
  headers.set(HEADER.sequence, String(sequence));
  headers.set(HEADER.lastSequence, String(previous));
  process.nc.publish(`ph-live.acme.-.${name}`, JSON.stringify({ n }), { headers });
}

async function listen(bus = process.bus) {
  const heard = new Collected<BusEvent>();
  const live = bus.live({ audience: 'acme', scope: 'global', filter: `-.${name}` }, heard.add);
  await live.started;
  const numbers = async (count: number) => (await heard.until(count)).map(({ message }) => message.n);
  return { heard, live, numbers, [Symbol.dispose]: () => live.close() };
}

describe('a copy that does not come', () => {
  it('is read from the stream before anything later goes out', async () => {
    using one = await listen();
    const stored = [await store(1), await store(2), await store(3), await store(4)] as const;
    copy(stored[0], 0);
    copy(stored[3], stored[2].sequence);
    expect(await one.numbers(4)).toEqual([1, 2, 3, 4]);
    expect(one.heard.items.map(({ position }) => position.sequence)).toEqual(
      stored.map(({ sequence }) => sequence),
    );
    expect(process.seen).toMatchObject({ gaps: 1, dropped: [] });
  });

  it('is missed also where it would have been the first', async () => {
    using one = await listen();
    const [first, second] = [await store(1), await store(2)];
    copy(second, first.sequence);
    expect(await one.numbers(2)).toEqual([1, 2]);
  });

  it('and comes after all is dropped', async () => {
    using one = await listen();
    const [first, second] = [await store(1), await store(2)];
    copy(second, first.sequence);
    await one.numbers(2);
    copy(first, 0);
    await process.nc.flush();
    expect(await one.numbers(2)).toEqual([1, 2]);
    expect(process.seen.dropped).toEqual(['late']);
  });

  it('but was only overtaken goes out at once, without a question to the stream', async () => {
    using one = await listen();
    const [first, second, third] = [await store(1), await store(2), await store(3)];
    copy(first, 0);
    copy(third, second.sequence);
    copy(second, first.sequence);
    await process.nc.flush();
    expect(one.heard.items.map(({ message }) => message.n)).toEqual([1, 2, 3]);
  });

  it('because it was deleted holds nothing up', async () => {
    using one = await listen();
    const [first, second, third] = [await store(1), await store(2), await store(3)];
    await process.bus.jsm.streams.deleteMessage(STREAMS.global.name, second.sequence);
    copy(first, 0);
    // After a delete the server writes 0 for the one before.
    copy(third, 0);
    expect(await one.numbers(2)).toEqual([1, 3]);
  });

  it('is asked for until the stream answers, and nothing overtakes it meanwhile', async () => {
    await using link = await startTcpProxy(nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    using one = await listen(far.bus);
    const [first, second, third] = [await store(1), await store(2), await store(3)];
    copy(first, 0);
    copy(third, second.sequence);
    while (far.seen.gaps === 0) await new Promise(setImmediate);
    link.cut();
    link.restore();
    expect(await one.numbers(3)).toEqual([1, 2, 3]);
  });
});

describe('a copy of what is not in the stream', () => {
  it('is forgotten where it claims that something came before it', async () => {
    using one = await listen();
    const first = await store(1);
    copy(first, 0);
    copy({ n: 666, sequence: first.sequence + 1_000_000 }, first.sequence + 999_999);
    await one.numbers(1);
    const second = await store(2);
    copy(second, first.sequence);
    expect(await one.numbers(2)).toEqual([1, 2]);
  });
});

describe('events of several publishers at once', () => {
  it('reach a subscriber once each and in order, also where the server sends copies out of order', async () => {
    await using busy = await startNats();
    await prepareBus(busy);
    await using subscriber = await openBus(busy);
    const publishers = await Promise.all(Array.from({ length: 4 }, () => openBus(busy)));
    const heard = new Collected<BusEvent>();
    const live = subscriber.bus.live({ audience: 'acme', scope: 'global', filter: '-.busy' }, heard.add);
    await live.started;
    const draft = {
      audience: 'acme',
      topic: parseTopic('busy'),
      scope: 'global',
      principal: 'p',
      source: 't',
    } as const;
    const each = 1_000;
    await Promise.all(
      publishers.map(({ bus }) =>
        Promise.all(Array.from({ length: each }, (_, n) => bus.publish({ ...draft, message: { n } }))),
      ),
    );
    const events = await heard.until(each * publishers.length);
    const sequences = events.map(({ position }) => position.sequence);
    expect(sequences).toEqual(Array.from({ length: each * publishers.length }, (_, i) => sequences[0]! + i));
    live.close();
    for (const publisher of publishers) await publisher[Symbol.asyncDispose]();
  });
});
