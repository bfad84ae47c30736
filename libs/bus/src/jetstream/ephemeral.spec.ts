import { afterAll, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { HEADER, parseTopic, REGISTRY_CALLS, STREAMS } from '@posthorn/contracts';
import {
  Collected,
  draftOf,
  eventually,
  openBus,
  prepareBus,
  rawPublish,
  type ServedBus,
  startBus,
  startNats,
  startTcpProxy,
  type TestBus,
} from '@posthorn/testing';
import type { EphemeralEvent } from '../port.js';

const cursors = { topic: 'cursor/moves', audience: 'acme', durable: false };
const typing = {
  topic: 'typing',
  audience: 'acme',
  durable: false,
  schema: { type: 'object', required: ['who'] },
};
const topics = [cursors, typing, { topic: 'prices', audience: 'acme' }];
const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

let process: ServedBus;

beforeAll(async () => {
  process = await startBus({ audiences: ['acme', 'beta'], topics });
});
afterAll(async () => process[Symbol.asyncDispose]());
beforeEach(() => {
  process.seen.dropped = [];
});

const publish = (...given: Parameters<typeof draftOf>) => process.bus.publish(draftOf(...given));
const lastSequence = async () => (await process.bus.jsm.streams.info(STREAMS.global.name)).state.last_seq;

/** Whoever hears a filter, from when the server knows of it. */
async function listen(filter: string, { bus, nc }: TestBus = process, audience = 'acme') {
  const heard = new Collected<EphemeralEvent>();
  const { close } = bus.ephemeral({ audience, filter }, heard.add);
  await nc.flush();
  return Object.assign(heard, { close, [Symbol.dispose]: close });
}

describe('an event of an ephemeral topic', () => {
  it('reaches who listens, in this process and others, and is stored nowhere', async () => {
    await using other = await openBus(process.nats);
    using here = await listen('-.cursor.moves');
    using there = await listen('-.cursor.*', other);
    const before = await lastSequence();
    const receipt = await publish('cursor/moves', { x: 1 }, { id: 'move-1', traceparent });
    expect(receipt).toEqual({ id: 'move-1', duplicate: false, bytes: 0 });
    for (const heard of [here, there]) {
      const [event] = await heard.until(1);
      expect(event).toEqual({
        audience: 'acme',
        path: '-.cursor.moves',
        topic: expect.objectContaining({ name: 'cursor/moves' }),
        id: 'move-1',
        kind: undefined,
        bytes: expect.any(Uint8Array),
        message: { x: 1 },
        traceparent,
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      });
    }
    expect(await lastSequence()).toBe(before);
  });

  it('has the envelope of any other, except what JetStream alone looks at', async () => {
    const nc = await connect({ servers: process.nats.url });
    const messages = nc.subscribe('ph-eph.acme.-.cursor.moves', { max: 1 });
    await nc.flush();
    await publish('cursor/moves', { x: 1 }, { id: 'move-2' });
    for await (const { headers } of messages) {
      expect(Object.fromEntries(headers!.keys().map((key) => [key, headers!.get(key)]))).toEqual({
        [HEADER.specVersion]: '1.0',
        [HEADER.id]: 'move-2',
        [HEADER.source]: 'test',
        [HEADER.type]: 'cursor/moves',
        [HEADER.time]: expect.stringMatching(/^\d{4}-.*Z$/),
        [HEADER.topic]: 'cursor/moves',
      });
    }
    await nc.close();
  });

  it('comes in the order in which its publisher sent it', async () => {
    using heard = await listen('-.cursor.moves');
    await Promise.all(Array.from({ length: 1_000 }, (_, n) => publish('cursor/moves', { n })));
    const events = await heard.until(1_000);
    expect(events.map(({ message }) => message.n)).toEqual(Array.from({ length: 1_000 }, (_, n) => n));
  });

  it('shares one round trip with all that are published in the same turn', async () => {
    const flush = jest.spyOn(process.nc, 'flush');
    await Promise.all(Array.from({ length: 100 }, (_, n) => publish('cursor/moves', { n })));
    expect(flush).toHaveBeenCalledTimes(1);
    flush.mockRestore();
  });

  it('is not heard by another audience, nor after the end of the subscription', async () => {
    using beta = await listen('>', process, 'beta');
    const closed = await listen('-.cursor.moves');
    using open = await listen('-.cursor.moves');
    closed.close();
    await publish('cursor/moves', {});
    await open.until(1);
    expect(beta.items.length + closed.items.length).toBe(0);
  });

  it('reaches the others when a handler throws', async () => {
    const { close } = process.bus.ephemeral({ audience: 'acme', filter: '-.cursor.moves' }, () => {
      throw new Error('broken');
    });
    using heard = await listen('-.cursor.moves');
    await publish('cursor/moves', {});
    await publish('cursor/moves', {});
    await heard.until(2);
    close();
    expect(process.seen.log.map(({ message }) => message)).toContain('a handler of ephemeral events threw');
  });
});

describe('a publish on an ephemeral topic is refused', () => {
  it('when it does not fit the schema, is no object, is too large, or has no such id', async () => {
    for (const [given, code] of [
      [draftOf('typing', {}), 'payload_invalid'],
      [draftOf('cursor/moves', []), 'request_invalid'],
      [draftOf('cursor/moves', { t: 'x'.repeat(100) }, { limit: 100 }), 'payload_too_large'],
      [draftOf('cursor/moves', {}, { id: 'a\nb' }), 'request_invalid'],
    ] as const) {
      await expect(process.bus.publish(given)).rejects.toMatchObject({ code });
    }
  });

  it('when it is local: it would reach nobody', async () => {
    await expect(publish('cursor/moves', {}, { scope: 'local' })).rejects.toMatchObject({
      code: 'request_invalid',
      detail: 'cursor/moves is ephemeral, and has global events only',
    });
  });

  it('when the server does not let this connection publish there', async () => {
    const permissions = 'permissions { publish { deny: "ph-eph.>" } }';
    const config = `authorization { users [{ user: u, password: p, ${permissions} }] }\nno_auth_user: u`;
    await using guarded = await startNats({ config });
    await prepareBus(guarded, { topics });
    await using denied = await openBus(guarded);
    const refused = await Promise.allSettled(
      [1, 2].map((n) => denied.bus.publish(draftOf('cursor/moves', { n }))),
    );
    for (const outcome of refused) expect(outcome).toMatchObject({ reason: { code: 'unavailable' } });
    await expect(denied.bus.publish(draftOf('prices', {}))).resolves.toMatchObject({ duplicate: false });
  });

  it('while NATS is away, and as soon as the connection is lost', async () => {
    await using link = await startTcpProxy(process.nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    link.stall();
    const waiting = far.bus.publish(draftOf('cursor/moves', {}));
    const started = performance.now();
    link.reset();
    await expect(waiting).rejects.toMatchObject({ code: 'unavailable', retryAfter: 1 });
    await expect(far.bus.publish(draftOf('cursor/moves', {}))).rejects.toMatchObject({ code: 'unavailable' });
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  it('when the server does not answer in time', async () => {
    await using link = await startTcpProxy(process.nats.port);
    await using far = await openBus({ url: `nats://127.0.0.1:${link.port}` }, { ackTimeout: 200 });
    link.stall();
    await expect(far.bus.publish(draftOf('cursor/moves', {}))).rejects.toMatchObject({ code: 'unavailable' });
    link.restore();
    await expect(far.bus.publish(draftOf('cursor/moves', {}))).resolves.toMatchObject({ duplicate: false });
  });
});

describe('what comes on the subject of ephemeral events', () => {
  const NO_HEADERS = 'NATS/1.0\r\n\r\n';

  it('is dropped on topics that are not ephemeral', async () => {
    using heard = await listen('>');
    for (const path of ['-.prices', '-.never.registered', 'alice.personal', '-.bad=2e']) {
      await rawPublish(process.nats, `ph-eph.acme.${path}`, NO_HEADERS, '{}');
    }
    await publish('cursor/moves', {});
    await heard.until(1);
    expect(heard.items.map(({ path }) => path)).toEqual(['-.cursor.moves']);
    expect(process.seen.dropped).toEqual(Array(4).fill('not_ephemeral'));
  });

  it('is dropped where it is no event', async () => {
    using heard = await listen('-.typing');
    for (const payload of ['{', '[]', '{}', Buffer.from([0x7b, 0xff, 0x7d])]) {
      await rawPublish(process.nats, 'ph-eph.acme.-.typing', NO_HEADERS, payload);
    }
    await publish('typing', { who: 'alice' });
    await heard.until(1);
    expect(heard.items.map(({ message }) => message)).toEqual([{ who: 'alice' }]);
    expect(process.seen.dropped).toEqual(['not_json', 'not_object', 'schema', 'not_json']);
  });

  it('gets an id where a foreign publisher gave none, or headers that nobody can read', async () => {
    using heard = await listen('-.cursor.moves');
    await rawPublish(process.nats, 'ph-eph.acme.-.cursor.moves', NO_HEADERS, '{"n":1}');
    await rawPublish(
      process.nats,
      'ph-eph.acme.-.cursor.moves',
      'NATS/1.0\r\nbad name: x\r\n\r\n',
      '{"n":1}',
    );
    const ids = (await heard.until(2)).map(({ id }) => id);
    expect(ids).toEqual([expect.stringMatching(/-7/), expect.stringMatching(/-7/)]);
    expect(new Set(ids).size).toBe(2);
  });
});

describe('whether a topic is ephemeral', () => {
  const isEphemeral = (name: string, audience = 'acme') =>
    process.bus.isEphemeral(audience, parseTopic(name));

  it('is known at once of what is registered, and of the catalogue', () => {
    expect(isEphemeral('cursor/moves')).toBe(true);
    expect(isEphemeral('prices')).toBe(false);
    expect(isEphemeral('personal.alice')).toBe(false);
  });

  it('is asked of the registry for the rest; with the registry away it is not', async () => {
    expect(await isEphemeral('never/registered')).toBe(false);
  });

  it('counts from when the registry says so, for publishers too', async () => {
    const nc = await connect({ servers: process.nats.url });
    const record = { ...cursors, topic: 'just/now', path: '-.just.now' };
    nc.subscribe(REGISTRY_CALLS.lookup, {
      callback: (_, msg) => {
        msg.respond(JSON.stringify({ response: { audience: null, topic: record } }));
      },
    });
    await nc.flush();
    expect(await isEphemeral('just/now')).toBe(true);
    expect(await publish('just/now')).not.toHaveProperty('position');
    await nc.close();
  });

  it('leaves readable what was stored before', async () => {
    const { position } = await publish('once/stored', { n: 1 });
    await prepareBus(process.nats, { topics: [{ ...cursors, topic: 'once/stored' }] });
    await eventually(() => isEphemeral('once/stored') === true);
    using heard = await listen('-.once.stored');
    expect(await publish('once/stored', { n: 2 })).not.toHaveProperty('position');
    await heard.until(1);
    const horizon = await process.bus.horizon('global');
    const interest = { audience: 'acme', scope: 'global', filter: '-.once.stored' } as const;
    const events = [];
    for await (const event of await process.bus.history(interest, { ...horizon, sequence: 0 }, horizon)) {
      events.push(event);
    }
    expect(events.map((event) => [event.message, event.position])).toEqual([[{ n: 1 }, position]]);
  });
});
