import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { HEADER, PAYLOAD_LIMIT, STREAMS, type TopicRecord } from '@posthorn/contracts';
import { draftOf, openBus, type ServedBus, startBus } from '@posthorn/testing';
import type { Draft } from '../port.js';

const schema = { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } };
const priced: Pick<TopicRecord, 'topic' | 'audience' | 'schema'> = {
  topic: 'prices',
  audience: 'acme',
  schema,
};

let process: ServedBus;

beforeAll(async () => {
  process = await startBus({ audiences: ['acme', 'beta', '👥.*'], topics: [priced] });
});

afterAll(async () => process[Symbol.asyncDispose]());

const draft = ({ name = 'system/events', ...more }: Partial<Draft> & { name?: string } = {}) =>
  draftOf(name, { n: 1 }, more);
const publish = (more: Parameters<typeof draft>[0] = {}) => process.bus.publish(draft(more));
const stored = async (sequence: number, scope: 'global' | 'local' = 'global') =>
  (await process.bus.jsm.streams.getMessage(STREAMS[scope].name, { seq: sequence }))!;
const lastSequence = async () => (await process.bus.jsm.streams.info(STREAMS.global.name)).state.last_seq;

describe('a publish', () => {
  it('is acknowledged once it is stored, with its envelope', async () => {
    const receipt = await publish({ id: 'order-7', message: { text: 'é😀' }, kind: 'broadcast' });
    expect(receipt).toMatchObject({
      id: 'order-7',
      duplicate: false,
      position: { epoch: expect.any(String) },
    });
    const { subject, header, data } = await stored(receipt.position!.sequence);
    expect(subject).toBe('ph.acme.global.-.system.events');
    expect(new TextDecoder().decode(data)).toBe('{"text":"é😀"}');
    expect(Object.fromEntries(header!.keys().map((key) => [key, header!.values(key)]))).toEqual({
      [HEADER.msgId]: [expect.stringMatching(/^[\w-]{43}$/)],
      [HEADER.specVersion]: ['1.0'],
      [HEADER.id]: ['order-7'],
      [HEADER.source]: ['test'],
      [HEADER.type]: ['system/events'],
      [HEADER.time]: [expect.stringMatching(/^\d{4}-.*Z$/)],
      [HEADER.topic]: ['system/events'],
      [HEADER.kind]: ['broadcast'],
    });
  });

  it('gets an id where it has none', async () => {
    const { id, position } = await publish();
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    expect((await stored(position!.sequence)).header!.get(HEADER.id)).toBe(id);
  });

  it('goes to its instance on scope local', async () => {
    const { position } = await publish({ name: 'login:success', scope: 'local' });
    expect((await stored(position!.sequence, 'local')).subject).toBe('ph.acme.local.main.-.login.success');
  });

  it('keeps the secret of a client to itself', async () => {
    const id = 'f3b0c442-98fc-4c14-9afb-f4c8996fb924';
    const { position } = await publish({ name: `client:${id}` });
    const { subject, header } = await stored(position!.sequence);
    expect(subject + header!.toString()).not.toContain(id);
  });

  it('keeps the order of calls that nobody waited for, also on a topic seen for the first time', async () => {
    for (const name of ['system/events', 'never/seen/before', 'prices']) {
      const receipts = await Promise.all(
        Array.from({ length: 300 }, (_, n) => publish({ name, message: { n } })),
      );
      const sequences = receipts.map(({ position }) => position!.sequence);
      expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    }
  });

  it('reaches every audience, under any name', async () => {
    const { position } = await publish({ audience: '👥.*', name: 'a' });
    expect((await stored(position!.sequence)).subject).toBe('ph.=F0=9F=91=A5=2E=2A.global.-.a');
  });
});

describe('a publish is refused', () => {
  it('when it does not fit the registered schema or the catalogue', async () => {
    for (const refused of [
      { name: 'prices', message: { n: 'one' } },
      { name: 'community:join', message: { author: '1', target: '2' } },
    ]) {
      await expect(publish(refused)).rejects.toMatchObject({
        code: 'payload_invalid',
        errors: [expect.objectContaining({ path: expect.any(String), message: expect.any(String) })],
      });
    }
    await expect(publish({ name: 'prices', audience: 'beta', message: { n: 'one' } })).resolves.toBeDefined();
  });

  it('when the audience does not exist and the registry cannot be asked', async () => {
    await expect(publish({ audience: 'nobody' })).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('when it is larger than 1 MiB', async () => {
    const text = (bytes: number) => ({ t: 'x'.repeat(bytes - '{"t":""}'.length) });
    await expect(publish({ message: text(PAYLOAD_LIMIT.service) })).resolves.toBeDefined();
    await expect(publish({ message: text(PAYLOAD_LIMIT.service + 1) })).rejects.toMatchObject({
      code: 'payload_too_large',
    });
  });

  it('when it is no JSON object', async () => {
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    for (const message of [
      circular,
      { n: 1n },
      { toJSON: () => undefined },
      { toJSON: () => [1] },
      new Date(),
    ]) {
      await expect(publish({ message })).rejects.toMatchObject({ code: 'request_invalid' });
    }
  });

  it('when its id could not stand in a header or a frame', async () => {
    for (const id of [
      'a\r\nNats-Rollup: all',
      'a\nb',
      '\0',
      ' a',
      'a ',
      '',
      '\u0085',
      'x'.repeat(256),
      'a\ud800',
    ]) {
      await expect(publish({ id })).rejects.toMatchObject({ code: 'request_invalid' });
    }
    await expect(publish({ id: 'é 😀 "quoted", and: more' })).resolves.toMatchObject({ duplicate: false });
  });

  it('when names are so long that the server would close the connection', async () => {
    const name = `room/session/x/${'😀'.repeat(255)}`;
    await expect(publish({ name })).resolves.toBeDefined();
    const far = await openBus(process.nats, { instance: '界'.repeat(100) });
    await expect(far.bus.publish(draft({ name, scope: 'local' }))).rejects.toMatchObject({
      code: 'request_invalid',
    });
    await far[Symbol.asyncDispose]();
  });
});

describe('what stands in headers', () => {
  it('cannot bring a header of its own', async () => {
    const username = 'eve\r\nNats-Rollup: all\nX: y';
    const { position } = await publish({
      name: `personal.${username}`,
      source: 'evil\r\nNats-Expected-Last-Sequence: 0',
      traceparent: '00-0\r\nNats-Rollup: all',
      message: { username, title: 't', message: 'm' },
    });
    const { header } = await stored(position!.sequence);
    expect(header!.keys().sort()).toEqual(
      [
        HEADER.msgId,
        HEADER.specVersion,
        HEADER.id,
        HEADER.source,
        HEADER.type,
        HEADER.time,
        HEADER.topic,
      ].sort(),
    );
    expect(header!.get(HEADER.topic)).toBe('personal.eve Nats-Rollup: all X: y');
  });

  it('carries a trace', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const { position } = await publish({ traceparent });
    expect((await stored(position!.sequence)).header!.get('traceparent')).toBe(traceparent);
  });
});

describe('a receipt', () => {
  it('says how much larger the stream has become', async () => {
    const { streams } = process.bus.jsm;
    const size = async () => (await streams.info(STREAMS.local.name)).state.bytes;
    for (const more of [{}, { message: { text: 'é😀' }, id: 'é', source: 'ü', kind: 'broadcast' as const }]) {
      const before = await size();
      const { bytes } = await publish({ scope: 'local', ...more });
      expect((await size()) - before).toBe(bytes);
    }
  });
});

describe('the same publish again', () => {
  it('is the original, stored once', async () => {
    const first = await publish({ id: 'one', idempotencyKey: 'key-1', message: { a: 1, b: 2 } });
    const before = await lastSequence();
    const again = await publish({ id: 'two', idempotencyKey: 'key-1', message: { b: 2, a: 1 } });
    expect(again).toEqual({ ...first, duplicate: true });
    expect(await lastSequence()).toBe(before);
  });

  it('has its id as its key', async () => {
    const first = await publish({ id: 'same' });
    expect(await publish({ id: 'same' })).toEqual({ ...first, duplicate: true });
  });

  it('with another payload is a conflict', async () => {
    await publish({ id: 'conflict', message: { n: 1 } });
    await expect(publish({ id: 'conflict', message: { n: 2 } })).rejects.toMatchObject({
      code: 'idempotency_conflict',
    });
  });

  it('is another one for another audience, scope, topic or principal', async () => {
    const same = { id: 'independent' };
    const receipts = [
      await publish(same),
      await publish({ ...same, audience: 'beta' }),
      await publish({ ...same, scope: 'local' }),
      await publish({ ...same, name: 'system/other' }),
      await publish({ ...same, principal: 'user:7' }),
    ];
    expect(receipts.map(({ duplicate }) => duplicate)).toEqual([false, false, false, false, false]);
  });
});
