import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { jetstream, jetstreamManager, type StreamConfig } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { startNats, startNatsCluster, type TestNats } from '@posthorn/testing';
import {
  describeDifference,
  diffStream,
  inspectStreams,
  ProvisioningError,
  provisionStreams,
  streamConfigs,
  type WantedStream,
} from './stream-config.js';

const MIB = 1024 ** 2;
const wanted = streamConfigs({ maxAgeSeconds: 3600, maxBytes: 64 * MIB, replicas: 1 });
const [global, local, dead] = wanted as [WantedStream, WantedStream, WantedStream];

describe('streamConfigs', () => {
  it('keeps events on file by age and bytes alone, with a duplicate window and direct reads', () => {
    for (const stream of [global, local]) {
      expect(stream).toMatchObject({
        storage: 'file',
        retention: 'limits',
        discard: 'old',
        max_age: 3600e9,
        max_bytes: 64 * MIB,
        max_msgs: -1,
        max_msgs_per_subject: -1,
        duplicate_window: 120e9,
        allow_direct: true,
        allow_rollup_hdrs: false,
        num_replicas: 1,
      });
    }
  });

  it('keeps dead letters for 30 days, in 1 GiB or what an event stream has', () => {
    expect(dead).toMatchObject({ name: 'PH_DEAD', max_age: 30 * 86_400e9, max_bytes: 64 * MIB });
    expect(dead.republish).toBeUndefined();
    const [, , roomy] = streamConfigs({ maxAgeSeconds: 60, maxBytes: 10 * 1024 * MIB, replicas: 3 });
    expect(roomy).toMatchObject({ max_bytes: 1024 * MIB, num_replicas: 3 });
  });

  it('never asks for a duplicate window that is longer than the history', () => {
    const [short] = streamConfigs({ maxAgeSeconds: 60, maxBytes: MIB, replicas: 1 });
    expect(short?.duplicate_window).toBe(60e9);
  });
});

describe('diffStream', () => {
  it('finds nothing in a stream that is as wanted, whatever the operator set beside it', () => {
    const current = { ...global, no_ack: undefined, description: 'ours', compression: 's2' };
    expect(diffStream(current as Partial<StreamConfig>, global, '2.9.10')).toEqual([]);
  });

  it('tells what is, what is wanted, and whether the server can change it', () => {
    const differences = diffStream({ ...global, max_age: 60e9, storage: 'memory' }, global, '2.9.10');
    expect(differences).toEqual([
      { stream: 'PH_GLOBAL', setting: 'storage', is: 'memory', wanted: 'file', changeable: false },
      { stream: 'PH_GLOBAL', setting: 'max_age', is: 60e9, wanted: 3600e9, changeable: true },
    ]);
    expect(differences.map(describeDifference)).toEqual([
      'storage is memory, wanted file',
      'max_age is 60 s, wanted 3600 s',
    ]);
  });

  it.each([
    ['2.9.10', false],
    ['2.10.0', true],
    ['2.12.1', true],
  ])('knows that %s can change republish: %s', (version, changeable) => {
    const [difference] = diffStream({ ...global, republish: undefined }, global, version);
    expect(difference).toMatchObject({ setting: 'republish', is: null, changeable });
  });

  it('takes republishing of headers only for another thing', () => {
    const current = { ...global, republish: { ...global.republish!, headers_only: true } };
    expect(diffStream(current, global, '2.9.10')).toHaveLength(1);
  });
});

describe('provisionStreams', () => {
  let server: TestNats;
  let nc: NatsConnection;

  beforeAll(async () => {
    server = await startNats();
  });
  beforeEach(async () => {
    nc = await connect({ servers: server.url });
  });
  afterEach(async () => {
    const { streams } = await jetstreamManager(nc);
    for await (const name of streams.names()) await streams.delete(name);
    await nc.close();
  });
  afterAll(async () => server[Symbol.asyncDispose]());

  it('creates what is missing and leaves what fits', async () => {
    expect((await provisionStreams(nc, wanted)).map(({ outcome }) => outcome)).toEqual(
      Array(3).fill('created'),
    );
    expect((await provisionStreams(nc, wanted)).map(({ outcome }) => outcome)).toEqual(
      Array(3).fill('unchanged'),
    );
    for (const state of await inspectStreams(nc, wanted)) {
      expect(state).toMatchObject({ missing: false, differences: [] });
    }
  });

  it('makes streams whose live copies keep key and segments, apart by audience and instance', async () => {
    await provisionStreams(nc, wanted);
    const copies = nc.subscribe('ph-live.>', { max: 1 });
    const localCopies = nc.subscribe('ph-live-local.>', { max: 1 });
    await jetstream(nc).publish('ph.acme.global.alice=2Esmith.personal', '{}');
    await jetstream(nc).publish('ph.acme.local.eu-1.-.community.join', '{}');
    const copied = [];
    for await (const { subject } of copies) copied.push(subject);
    for await (const { subject } of localCopies) copied.push(subject);
    expect(copied).toEqual([
      'ph-live.acme.alice=2Esmith.personal',
      'ph-live-local.acme.eu-1.-.community.join',
    ]);
  });

  it('takes a payload of 1 MiB with its headers', async () => {
    await provisionStreams(nc, wanted);
    const { headers } = await import('@nats-io/transport-node');
    const head = headers();
    head.set('ce-id', 'x'.repeat(4096));
    const ack = await jetstream(nc).publish('ph.acme.global.-.big', new Uint8Array(MIB), { headers: head });
    expect(ack.stream).toBe('PH_GLOBAL');
  });

  it('changes limits, keeps the events, and keeps what the operator added', async () => {
    await provisionStreams(nc, wanted);
    const { streams } = await jetstreamManager(nc);
    await streams.update('PH_GLOBAL', { description: 'the operator wrote this' });
    await jetstream(nc).publish('ph.acme.global.-.kept', '{}');
    const longer = streamConfigs({ maxAgeSeconds: 7200, maxBytes: 128 * MIB, replicas: 1 });

    const [changed] = await provisionStreams(nc, longer);

    expect(changed?.outcome).toBe('updated');
    expect(changed?.changed.map(({ setting }) => setting)).toEqual(['max_age', 'max_bytes']);
    const info = await streams.info('PH_GLOBAL');
    expect(info.config).toMatchObject({ max_age: 7200e9, description: 'the operator wrote this' });
    expect(info.state.messages).toBe(1);
  });

  it('refuses a stream that cannot be changed, says what to do, and leaves it alone', async () => {
    const { streams } = await jetstreamManager(nc);
    await streams.add({ ...global, max_age: 60e9, duplicate_window: 60e9, republish: undefined });
    await expect(provisionStreams(nc, wanted)).rejects.toThrow(
      /Stream PH_GLOBAL: republish is not set, wanted .*ph-live.* cannot change .*nats stream backup PH_GLOBAL .*2\.10/,
    );
    expect((await streams.info('PH_GLOBAL')).config.max_age).toBe(60e9);
  });

  it('says that a lone server keeps no replicas, before it takes an update that it would not survive', async () => {
    await provisionStreams(nc, wanted);
    const replicated = streamConfigs({ maxAgeSeconds: 3600, maxBytes: 64 * MIB, replicas: 3 });
    await expect(provisionStreams(nc, replicated)).rejects.toThrow(/3 replicas .* Set STREAM_REPLICAS=1/);
    expect((await inspectStreams(nc, wanted))[0]).toMatchObject({ differences: [] });
  });

  it('names the variable when the server has no room', async () => {
    const huge = streamConfigs({ maxAgeSeconds: 60, maxBytes: Number.MAX_SAFE_INTEGER, replicas: 1 });
    const failure = provisionStreams(nc, huge);
    await expect(failure).rejects.toBeInstanceOf(ProvisioningError);
    await expect(failure).rejects.toThrow(/insufficient storage.* STREAM_MAX_BYTES/);
  });

  it('says when another stream holds its subjects', async () => {
    const { streams } = await jetstreamManager(nc);
    await streams.add({ name: 'FOREIGN', subjects: ['ph.*.global.*.x'] });
    await expect(provisionStreams(nc, wanted)).rejects.toThrow(/subjects overlap.*nats stream ls/);
  });

  it('is safe when replicas do it at once, even with different limits', async () => {
    const others = await Promise.all(Array.from({ length: 8 }, () => connect({ servers: server.url })));
    const different = streamConfigs({ maxAgeSeconds: 7200, maxBytes: 64 * MIB, replicas: 1 });
    await Promise.all(others.map((other, i) => provisionStreams(other, i % 2 ? wanted : different)));
    await Promise.all(others.map((other) => other.close()));
    const { streams } = await jetstreamManager(nc);
    expect([3600e9, 7200e9]).toContain((await streams.info('PH_GLOBAL')).config.max_age);
  });

  it('tells a stream that is missing', async () => {
    await provisionStreams(nc, wanted);
    await (await jetstreamManager(nc)).streams.delete('PH_LOCAL');
    const missing = (await inspectStreams(nc, wanted)).filter((state) => state.missing);
    expect(missing.map(({ stream }) => stream)).toEqual(['PH_LOCAL']);
  });
});

describe('in a cluster', () => {
  it('creates replicated streams and changes their number', async () => {
    await using cluster = await startNatsCluster();
    const nc = await connect({ servers: cluster.url.split(',') });
    await provisionStreams(nc, streamConfigs({ maxAgeSeconds: 3600, maxBytes: 64 * MIB, replicas: 3 }));
    const { streams } = await jetstreamManager(nc);
    expect((await streams.info('PH_GLOBAL')).cluster?.replicas).toHaveLength(2);
    const [changed] = await provisionStreams(nc, wanted);
    expect(changed?.changed.map(({ setting }) => setting)).toEqual(['num_replicas']);
    await nc.close();
  });
});
