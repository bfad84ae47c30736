import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { BusObserver, DropReason } from '@posthorn/bus';
import {
  type Draft,
  JetStreamBus,
  type JetStreamBusOptions,
  provisionStreams,
  streamConfigs,
} from '@posthorn/bus/platform';
import {
  type AudienceRecord,
  audienceKey,
  BUCKETS,
  makeEpoch,
  parseTopic,
  STREAMS,
  type StreamRecord,
  type Topic,
  type TopicRecord,
  topicKey,
} from '@posthorn/contracts';
import { startNats, type TestNats } from './nats-server.js';

const MIB = 1024 * 1024;
const EPOCH_OF_TESTS = '2026-01-01T00:00:00.000Z';

export interface BusContent {
  /** Audiences that exist. Default: `acme`. */
  audiences?: readonly string[];
  /** Topics that are registered, each for one of the audiences. */
  topics?: readonly (Pick<TopicRecord, 'topic' | 'audience'> & Partial<TopicRecord>)[];
  /** False: streams that republish nothing, so that a test decides which copies come. Default true. */
  republish?: boolean;
  /** How many servers of a cluster keep each stream and bucket. Default 1. */
  replicas?: number;
}

/**
 * Makes on a NATS server what the registry would: the streams, their epochs, and the bucket of audiences and
 * topics. What exists stays; more audiences and topics may be added by another call.
 */
export async function prepareBus(nats: { readonly url: string }, content: BusContent = {}): Promise<void> {
  const { audiences = ['acme'], topics = [], republish = true, replicas = 1 } = content;
  const nc = await connect({ servers: nats.url.split(',') });
  try {
    const wanted = streamConfigs({ maxAgeSeconds: 3600, maxBytes: 256 * MIB, replicas });
    const streams = republish ? wanted : wanted.map(({ republish: _, ...silent }) => silent);
    await provisionStreams(nc, streams);
    await recordEpochs();
    const bucket = await new Kvm(nc).create(BUCKETS.topics, { history: 1, replicas });
    for (const name of audiences) await bucket.put(audienceKey(name), JSON.stringify(audienceRecord(name)));
    for (const topic of topics) {
      const record = topicRecord(topic);
      await bucket.put(topicKey(record.audience, record.path), JSON.stringify(record));
    }
  } finally {
    await nc.close();
  }

  async function recordEpochs(): Promise<void> {
    const jsm = await jetstreamManager(nc);
    const bucket = await new Kvm(nc).create(BUCKETS.streams, { history: 1, replicas });
    for (const { name } of [STREAMS.global, STREAMS.local]) {
      const { created } = await jsm.streams.info(name);
      const record: StreamRecord = {
        stream: name,
        epoch: makeEpoch(Date.parse(created), 1),
        created,
        generation: 1,
      };
      await bucket.put(name, JSON.stringify(record));
    }
  }
}

/** A process on the bus: a connection of its own, and what the bus told about itself. */
export interface TestBus extends AsyncDisposable {
  readonly bus: JetStreamBus;
  readonly nc: NatsConnection;
  readonly seen: {
    dropped: DropReason[];
    gaps: number;
    repaired: number;
    settled: string[];
    refused: string[];
    readonly log: { message: string; fields: Record<string, unknown> }[];
  };
}

/** Opens the bus as an app would; disposing of it closes bus and connection. */
export async function openBus(
  nats: { readonly url: string },
  options: Partial<Omit<JetStreamBusOptions, 'nc' | 'connected' | 'observer' | 'log'>> = {},
): Promise<TestBus> {
  const servers = nats.url.split(',');
  const nc = await connect({ servers, reconnectTimeWait: 50, maxReconnectAttempts: -1 });
  let connected = true;
  const follow = async () => {
    for await (const { type } of nc.status()) {
      if (type === 'disconnect') connected = false;
      if (type === 'reconnect') connected = true;
    }
  };
  void follow();
  const seen: TestBus['seen'] = { dropped: [], gaps: 0, repaired: 0, settled: [], refused: [], log: [] };
  const observer: Partial<BusObserver> = {
    dropped: (reason) => seen.dropped.push(reason),
    gap: () => {
      seen.gaps += 1;
    },
    repaired: () => {
      seen.repaired += 1;
    },
    settled: (outcome) => seen.settled.push(outcome),
    refused: (code) => seen.refused.push(code),
  };
  const bus = await JetStreamBus.open({
    nc,
    instance: 'main',
    audience: null,
    connected: () => connected,
    observer,
    log: (_, message, fields) => seen.log.push({ message, fields }),
    ...options,
  });
  return {
    bus,
    nc,
    seen,
    [Symbol.asyncDispose]: async () => {
      bus.close();
      await nc.close();
    },
  };
}

/** A server of its own, with a process on it; disposing of it ends both. */
export interface ServedBus extends TestBus {
  readonly nats: TestNats;
}

/** Starts a server, makes on it what {@link prepareBus} makes, and opens the bus. */
export async function startBus(content: BusContent = {}): Promise<ServedBus> {
  const nats = await startNats();
  try {
    await prepareBus(nats, content);
    const process = await openBus(nats);
    return {
      ...process,
      nats,
      [Symbol.asyncDispose]: async () => {
        await process[Symbol.asyncDispose]();
        await nats[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await nats[Symbol.asyncDispose]();
    throw error;
  }
}

/** A global event of `acme` by a service. */
export function draftOf(topic: string | Topic, message: object = {}, more: Partial<Draft> = {}): Draft {
  return {
    audience: 'acme',
    topic: typeof topic === 'string' ? parseTopic(topic) : topic,
    scope: 'global',
    message,
    principal: 'service:test',
    source: 'test',
    ...more,
  };
}

function audienceRecord(name: string): AudienceRecord {
  return { id: `id-of-${name}`, name, created_at: EPOCH_OF_TESTS, updated_at: EPOCH_OF_TESTS };
}

function topicRecord(given: Pick<TopicRecord, 'topic' | 'audience'> & Partial<TopicRecord>): TopicRecord {
  return {
    id: `id-of-${given.topic}`,
    audienceId: `id-of-${given.audience}`,
    path: parseTopic(given.topic).path,
    durable: true,
    created_at: EPOCH_OF_TESTS,
    updated_at: EPOCH_OF_TESTS,
    ...given,
  };
}
