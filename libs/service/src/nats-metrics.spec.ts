import { beforeEach, describe, expect, it } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { startNats } from '@posthorn/testing';
import { Metrics } from './metrics.js';
import { NatsMetrics } from './nats-metrics.js';

let metrics: Metrics;
let nats: NatsMetrics;

beforeEach(() => {
  metrics = new Metrics('gateway');
  nats = new NatsMetrics(metrics);
});

async function value(series: string): Promise<number> {
  const { body } = await metrics.exposition();
  const line = body.split('\n').find((one) => one.startsWith(`posthorn_${series}`));
  return Number(line?.split(' ').at(-1));
}

describe('NatsMetrics', () => {
  it('says that there is no connection, and counts nothing, until there is one', async () => {
    expect(await value('nats_connected')).toBe(0);
    expect(await value('nats_messages_total{direction="in"')).toBe(0);
    expect(await value('nats_bytes_total{direction="out"')).toBe(0);
  });

  it('counts what goes over the connection that it follows, in both directions', async () => {
    await using server = await startNats();
    const nc = await connect({ servers: server.url });
    try {
      let connected = true;
      nats.follow(nc, () => connected);
      nc.subscribe('a', { callback: () => {} });
      nc.publish('a', 'hello');
      nc.publish('b', 'nobody hears it');
      await nc.flush();
      expect(await value('nats_messages_total{direction="out"')).toBe(2);
      expect(await value('nats_messages_total{direction="in"')).toBe(1);
      expect(await value('nats_bytes_total{direction="out"')).toBe('hello'.length + 'nobody hears it'.length);
      expect(await value('nats_bytes_total{direction="in"')).toBe('hello'.length);
      expect(await value('nats_connected')).toBe(1);
      connected = false;
      expect(await value('nats_connected')).toBe(0);
    } finally {
      await nc.close();
    }
  });
});
