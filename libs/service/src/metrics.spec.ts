import { beforeEach, describe, expect, it } from '@jest/globals';
import { Metrics, Peak } from './metrics.js';

let metrics: Metrics;

beforeEach(() => {
  metrics = new Metrics('gateway');
});

async function samples(name: string): Promise<string[]> {
  const { body } = await metrics.exposition();
  return body.split('\n').filter((line) => line.startsWith(`posthorn_${name}`));
}

describe('Metrics', () => {
  it('exposes the default metrics of the process, prefixed, with the app as a label', async () => {
    expect((await samples('process_resident_memory_bytes')).join()).toContain('{app="gateway"}');
  });

  it('exposes a counter at zero before it counted anything', async () => {
    metrics.counter('events_published_total', 'Events accepted');
    expect(await samples('events_published_total')).toEqual([
      'posthorn_events_published_total{app="gateway"} 0',
    ]);
  });

  it('keeps a counter growing from scrape to scrape', async () => {
    const frames = metrics.counters('frames_total', 'Frames', {
      received: { direction: 'in' },
      sent: { direction: 'out' },
    });
    frames.sent.inc();
    frames.sent.inc(2);
    await samples('frames_total');
    frames.received.inc();
    expect(await samples('frames_total')).toEqual([
      'posthorn_frames_total{direction="in",app="gateway"} 1',
      'posthorn_frames_total{direction="out",app="gateway"} 3',
    ]);
  });

  it('reads a gauge at the scrape, or keeps what was set', async () => {
    let connected = 3;
    metrics.gauge('connections', 'Open connections', () => connected);
    const draining = metrics.gauge('draining', 'Draining');
    draining.set(1);
    connected = 5;
    expect(await samples('connections')).toEqual(['posthorn_connections{app="gateway"} 5']);
    expect(await samples('draining')).toEqual(['posthorn_draining{app="gateway"} 1']);
  });

  it('sorts observations into buckets, each child apart', async () => {
    const seconds = metrics.histograms('call_seconds', 'Calls', [0.1, 1], {
      auth: { to: 'auth' },
      registry: { to: 'registry' },
    });
    seconds.auth.observe(0.5);
    expect(await samples('call_seconds_count')).toEqual([
      'posthorn_call_seconds_count{app="gateway",to="auth"} 1',
      'posthorn_call_seconds_count{app="gateway",to="registry"} 0',
    ]);
    expect(await samples('call_seconds_bucket{le="0.1"')).toEqual([
      'posthorn_call_seconds_bucket{le="0.1",app="gateway",to="auth"} 0',
      'posthorn_call_seconds_bucket{le="0.1",app="gateway",to="registry"} 0',
    ]);
  });
});

describe('Peak', () => {
  let clock = 0;
  let peak: Peak;

  beforeEach(() => {
    clock = 1_000;
    peak = new Peak(() => clock);
  });

  it('is nothing before anything was seen', () => {
    expect(peak.value).toBe(0);
  });

  it('tells the highest of this minute and the one before, to everybody who asks', () => {
    for (const seen of [3, 9, 4]) peak.see(seen);
    expect([peak.value, peak.value]).toEqual([9, 9]);
    clock += 60_000;
    expect(peak.value).toBe(9);
    peak.see(5);
    expect(peak.value).toBe(9);
    clock += 60_000;
    expect(peak.value).toBe(5);
    clock += 60_000;
    expect(peak.value).toBe(0);
  });

  it('tells once more what was seen in minutes without a question', () => {
    peak.see(7);
    clock += 600_000;
    expect(peak.value).toBe(7);
    clock += 59_999;
    expect(peak.value).toBe(7);
    clock += 1;
    expect(peak.value).toBe(0);
  });
});
