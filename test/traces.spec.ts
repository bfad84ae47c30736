/** One trace from the call that publishes to the socket of whom it concerns (docs/operations.md, "Traces"). */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { connectPubSub } from '@posthorn/bus';
import { isTraceparent } from '@posthorn/contracts';
import { type AppProcess, freePort, startCluster, type TestCluster } from '@posthorn/testing';
import { type CollectedSpan, Collector } from './support/collector.js';
import { CourierSocket, call } from './support/courier-client.js';
import { createTenant, eventually, type Tenant } from './support/tenant.js';

/** In payloads and in the id of a user: neither may be exported. */
const MARK = 'secret-mark-81d7';
const KIND = { server: 2, client: 3, producer: 4, consumer: 5 };

let collector: Collector;
let cluster: TestCluster;
let acme: Tenant;
/** Traces what asks for it; traces nothing; traces everything; cannot reach its collector. */
let asked: AppProcess;
let off: AppProcess;
let always: AppProcess;
let cut: AppProcess;

beforeAll(async () => {
  collector = await Collector.start();
  cluster = await startCluster({
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=posthorn,authorization=Basic%20c2VjcmV0',
      TRACE_RATIO: '0',
      LOG_LEVEL: 'debug',
    },
  });
  asked = cluster.app('gateway');
  const nobody = `http://127.0.0.1:${await freePort()}`;
  [off, always, cut] = await Promise.all([
    cluster.addReplica('gateway', { OTEL_EXPORTER_OTLP_ENDPOINT: '', OTEL_EXPORTER_OTLP_HEADERS: '' }),
    cluster.addReplica('gateway', { TRACE_RATIO: '1' }),
    cluster.addReplica('gateway', { TRACE_RATIO: '1', OTEL_EXPORTER_OTLP_ENDPOINT: nobody }),
  ]);
  acme = await createTenant(cluster, 'acme');
}, 120_000);
afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await collector?.[Symbol.asyncDispose]();
});

/** A trace context of a caller's own. */
function newTraceparent(flags = '01') {
  const [trace, span] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')];
  return { trace, span, traceparent: `00-${trace}-${span}-${flags}` };
}

const token = (sub: string, role: 'user' | 'service' = 'user') => acme.token(sub, { role });

async function publish(
  gateway: AppProcess,
  jwt: string,
  topic: string,
  message: object,
  traceparent?: string,
) {
  const answer = await call(
    gateway.url,
    jwt,
    'POST',
    '/v1/hook',
    { topic, action: 'publish', message },
    traceparent === undefined ? {} : { traceparent },
  );
  expect(answer).toMatchObject({ status: 200 });
  return answer.headers.get('posthorn-event-id')!;
}

/** Resolves when a gateway has exported what it recorded until now: spans leave it in the order of their ends. */
async function exported(gateway: AppProcess): Promise<void> {
  const { trace, traceparent } = newTraceparent();
  await publish(gateway, await token('svc', 'service'), 'pings', {}, traceparent);
  await collector.find(named(trace, 'POST /v1/hook'));
}

/** The `traceparent` that an event was stored with. */
async function stored(stream: string, id: string): Promise<string | undefined> {
  const nc = await connect({ servers: cluster.natsUrl });
  try {
    const jsm = await jetstreamManager(nc);
    const { state } = await jsm.streams.info(stream);
    for (let seq = state.last_seq; seq >= state.first_seq; seq--) {
      const message = await jsm.streams.getMessage(stream, { seq });
      if (message?.header.get('ce-id') === id) return message.header.get('traceparent') || undefined;
    }
    throw new Error(`${id} is not stored`);
  } finally {
    await nc.close();
  }
}

const named = (trace: string, name: string) => (span: CollectedSpan) =>
  span.traceId === trace && span.name === name;

describe('a community event that a service publishes over REST, and asks to have traced', () => {
  const { trace, span: callersSpan, traceparent } = newTraceparent();
  const bob = `bob-${MARK}`;
  let eventId: string;
  let service: string;
  const span: Record<string, CollectedSpan> = {};

  beforeAll(async () => {
    await using socket = await CourierSocket.open(asked.url, await token(bob));
    await using second = await CourierSocket.open(asked.url, await token(bob));
    await socket.subscribe('usernotification:created');
    await second.subscribe('usernotification:created');
    const invite = { author: 'alice', target: bob, community: MARK };
    service = await token('svc', 'service');
    eventId = await publish(asked, service, 'community:membership:invite', invite, traceparent);
    await socket.find((frame) => frame.topic === 'usernotification:created');
    for (const name of [
      'POST /v1/hook',
      'send community:membership:invite',
      'process community:membership:invite',
      'write inbox',
      'send usernotification:created',
      'receive usernotification:created',
    ]) {
      span[name] = await collector.find(named(trace, name));
    }
  }, 60_000);

  it('is one trace, in which each step has the one before it as its parent', () => {
    const steps = collector.of(trace).map(({ service, name, kind, parentSpanId }) => {
      const parent = Object.values(span).find(({ spanId }) => spanId === parentSpanId)?.name;
      return { service, name, kind, parent: parentSpanId === callersSpan ? 'the caller' : parent };
    });
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    expect(steps.sort(byName)).toEqual(
      [
        { service: 'posthorn-gateway', name: 'POST /v1/hook', kind: KIND.server, parent: 'the caller' },
        {
          service: 'posthorn-gateway',
          name: 'send community:membership:invite',
          kind: KIND.producer,
          parent: 'POST /v1/hook',
        },
        {
          service: 'posthorn-notifier',
          name: 'process community:membership:invite',
          kind: KIND.consumer,
          parent: 'send community:membership:invite',
        },
        {
          service: 'posthorn-notifier',
          name: 'write inbox',
          kind: KIND.client,
          parent: 'process community:membership:invite',
        },
        {
          service: 'posthorn-notifier',
          name: 'send usernotification:created',
          kind: KIND.producer,
          parent: 'process community:membership:invite',
        },
        {
          service: 'posthorn-gateway',
          name: 'receive usernotification:created',
          kind: KIND.consumer,
          parent: 'send usernotification:created',
        },
      ].sort(byName),
    );
  });

  it('says of each step what an operator looks for', () => {
    const about = (name: string) => span[name]!.attributes;
    expect(about('POST /v1/hook')).toMatchObject({
      'http.request.method': 'POST',
      'http.route': '/v1/hook',
      'http.response.status_code': 200,
      'posthorn.audience': 'acme',
    });
    expect(about('send community:membership:invite')).toMatchObject({
      'messaging.system': 'nats',
      'messaging.operation.type': 'send',
      'messaging.destination.name': 'PH_LOCAL',
      'messaging.destination.template': 'community:membership:invite',
      'messaging.message.id': eventId,
    });
    expect(about('process community:membership:invite')).toMatchObject({
      'messaging.consumer.group.name': 'notifier-main',
      'messaging.message.id': eventId,
      'posthorn.tries': 1,
      'posthorn.settlement': 'ack',
    });
    expect(about('write inbox')).toMatchObject({
      'db.system.name': 'postgresql',
      'db.operation.batch.size': 1,
      'posthorn.notifications': 1,
    });
    // Two sockets, and one write of the gateway's.
    expect(about('receive usernotification:created')).toMatchObject({ 'posthorn.connections': 2 });
    expect(Object.values(span).filter(({ failed }) => failed)).toEqual([]);
  });

  it('goes on in the stored events, so that whoever handles them goes on with it', async () => {
    const { spanId } = span['send community:membership:invite']!;
    expect(await stored('PH_LOCAL', eventId)).toBe(`00-${trace}-${spanId}-01`);
    const notification = span['send usernotification:created']!;
    const id = String(notification.attributes['messaging.message.id']);
    expect(await stored('PH_GLOBAL', id)).toBe(`00-${trace}-${notification.spanId}-01`);
  });

  it('is exported with the configured headers, and without a payload, a token or a user', () => {
    expect(collector.headers).toMatchObject({ 'x-tenant': 'posthorn', authorization: 'Basic c2VjcmV0' });
    for (const secret of [MARK, service, service.split('.').at(-1)!]) {
      expect(collector.received.includes(secret)).toBe(false);
    }
  });

  it('is named in the access log', () => {
    const lines = readFileSync(asked.logFile, 'utf8').split('\n');
    const line = lines.find((one) => one.includes(trace) && one.includes('"msg":"request"'))!;
    expect(JSON.parse(line)).toMatchObject({ trace, route: '/v1/hook', status: 200, audience: 'acme' });
  });
});

describe('an event that is for several feeds of a gateway', () => {
  it('is one step out of it', async () => {
    const { trace, traceparent } = newTraceparent();
    const everything = await acme.token('ann', { permissions: { subscribe: ['>'] } });
    await using topic = await CourierSocket.open(asked.url, everything);
    await using pattern = await CourierSocket.open(asked.url, everything);
    await topic.subscribe('orders/new');
    await pattern.subscribe('orders/*');
    await publish(asked, await token('svc', 'service'), 'orders/new', {}, traceparent);
    await Promise.all([topic, pattern].map((socket) => socket.find((frame) => frame.topic === 'orders/new')));
    const out = await collector.find(named(trace, 'receive'));
    expect(out.attributes).toMatchObject({ 'posthorn.connections': 2 });
    expect(out.attributes).not.toHaveProperty(['messaging.destination.template']);
    await collector.find(named(trace, 'POST /v1/hook'));
    expect(collector.of(trace).filter(({ name }) => name === 'receive')).toHaveLength(1);
  });
});

describe('calls between apps', () => {
  it('are in the trace of the request that makes them', async () => {
    const { trace, traceparent } = newTraceparent();
    const jwt = await token('svc', 'service');
    await call(asked.url, jwt, 'GET', '/v1/notifications/unread', undefined, { traceparent });
    const request = await collector.find(named(trace, 'GET /v1/notifications/unread'));
    const isCall = ({ name, traceId }: CollectedSpan) =>
      traceId === trace && name.startsWith('ph-rpc.notifier.');
    const asks = await collector.find((span) => isCall(span) && span.kind === KIND.client);
    const answers = await collector.find((span) => isCall(span) && span.kind === KIND.server);
    expect(asks).toMatchObject({ parentSpanId: request.spanId, service: 'posthorn-gateway' });
    expect(answers).toMatchObject({ parentSpanId: asks.spanId, service: 'posthorn-notifier' });
    expect(answers.attributes).toMatchObject({ 'rpc.system': 'nats', 'rpc.service': 'notifier' });
  });
});

describe('who decides what is traced', () => {
  it('no end user: a sampled context of one is stored as not sampled, and records nothing', async () => {
    const { trace, span, traceparent } = newTraceparent();
    const id = await publish(asked, await token('eve'), 'pings', {}, traceparent);
    expect(await stored('PH_GLOBAL', id)).toBe(`00-${trace}-${span}-00`);
    await exported(asked);
    expect(collector.of(trace)).toEqual([]);
  });

  it('a service that says no: its context is passed on, and records nothing, whatever the ratio', async () => {
    const { trace, traceparent } = newTraceparent('00');
    const id = await publish(always, await token('svc', 'service'), 'pings', {}, traceparent);
    expect(await stored('PH_GLOBAL', id)).toBe(traceparent);
    await exported(always);
    expect(collector.of(trace)).toEqual([]);
  });

  it('chance, for all others: an end user that is traced begins a trace, and its own is linked', async () => {
    const { trace, span, traceparent } = newTraceparent();
    const id = await publish(always, await token('eve'), 'pings', {}, traceparent);
    const sent = await collector.find(({ attributes }) => attributes['messaging.message.id'] === id);
    const request = await collector.find(({ spanId }) => spanId === sent.parentSpanId);
    expect(request).toMatchObject({ name: 'POST /v1/hook', links: [{ traceId: trace, spanId: span }] });
    expect(request.parentSpanId).toBeUndefined();
    expect(sent).toMatchObject({ name: 'send', traceId: request.traceId });
    expect(request.traceId).not.toBe(trace);
  });

  it('also for a publish on a socket', async () => {
    await using socket = await CourierSocket.open(always.url, await token('eve'));
    socket.send({ action: 'publish', topic: 'pings', message: {}, id: 'by-socket', ref: '1' });
    await socket.next('published', '1');
    const sent = await collector.find(({ attributes }) => attributes['messaging.message.id'] === 'by-socket');
    const frame = await collector.find(({ spanId }) => spanId === sent.parentSpanId);
    expect(frame).toMatchObject({ name: 'publish frame', kind: KIND.server });
  });
});

describe('without a collector', () => {
  it("nothing is added to an event, nothing is exported, and a service's context is passed on as it is", async () => {
    const { trace, traceparent } = newTraceparent();
    const service = await token('svc', 'service');
    const [plain, given] = [
      await publish(off, service, 'pings', {}),
      await publish(off, service, 'pings', {}, traceparent),
    ];
    expect(await stored('PH_GLOBAL', plain)).toBeUndefined();
    expect(await stored('PH_GLOBAL', given)).toBe(traceparent);
    expect(readFileSync(off.logFile, 'utf8')).not.toContain(trace);
  });

  it('one that is away costs a line in the log, not one for each export, and no event', async () => {
    const service = await token('svc', 'service');
    const failures = () =>
      readFileSync(cut.logFile, 'utf8')
        .split('\n')
        .filter((line) => line.includes('traces cannot'));
    await publish(cut, service, 'pings', {});
    await eventually(async () => failures()[0]);
    await Promise.all(Array.from({ length: 100 }, () => publish(cut, service, 'pings', {})));
    const began = Date.now();
    await cut.stop();
    expect(await cut.exited).toMatchObject({ code: 0 });
    expect(Date.now() - began).toBeLessThan(15_000);
    expect(failures().map((line) => JSON.parse(line))).toMatchObject([{ level: 'warn', app: 'gateway' }]);
  });
});

describe('a service with the server SDK', () => {
  it('records what it publishes and handles with a tracer of its own, as far as that wants to', async () => {
    const { trace, traceparent } = newTraceparent();
    const spans: { name: string; parent: string | undefined; traceparent: string; ended: unknown[] }[] = [];
    const pubsub = connectPubSub({
      ...{ servers: cluster.natsUrl, audience: 'acme', source: 'shop' },
      tracer: {
        start: (name, { parent }) => {
          const span = { name, parent, traceparent: newTraceparent().traceparent, ended: [] as unknown[] };
          spans.push(span);
          return {
            traceparent: span.traceparent,
            set: () => {},
            end: (failure) => void span.ended.push(failure),
          };
        },
      },
    });
    try {
      const handled = new Promise<string | undefined>((resolve) => {
        pubsub.global
          .topic('orders')
          .subscribe((_, { event }) => resolve(event.traceparent), { durable: 'traced' });
      });
      await pubsub.global.topic('orders').publish({}, { traceparent });
      const seen = await handled;
      const [sent, processed] = spans;
      expect(sent).toMatchObject({ name: 'send', parent: traceparent, ended: [undefined] });
      expect(processed).toMatchObject({ name: 'process', parent: sent!.traceparent });
      expect(seen).toBe(processed!.traceparent);
      expect(isTraceparent(seen)).toBe(true);
      expect(collector.of(trace)).toEqual([]);
    } finally {
      await pubsub.close();
    }
  });
});
