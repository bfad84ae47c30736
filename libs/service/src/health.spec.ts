import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Health, type ProbeServer, startProbeServer } from './health.js';
import { createLogger } from './logger.js';
import { Metrics } from './metrics.js';
import { StartError } from './start-error.js';

const logger = createLogger({ app: 'auth', level: 'silent' });

describe('Health', () => {
  it('is ready when everything it knows of is up', () => {
    const health = new Health();
    health.expect('nats', 'database');
    expect(health.ready).toBe(false);
    health.set('nats', true);
    health.set('database', true);
    expect(health.ready).toBe(true);
    health.set('nats', false, 'disconnected');
    expect(health.readiness()).toEqual({
      status: 'not_ready',
      checks: {
        nats: { up: false, detail: 'disconnected', since: expect.any(String) },
        database: { up: true, since: expect.any(String) },
      },
    });
  });

  it('does not forget a state when a check is expected again', () => {
    const health = new Health();
    health.set('nats', true);
    health.expect('nats');
    expect(health.ready).toBe(true);
  });

  it('is not ready while it drains, whatever its checks say', () => {
    const health = new Health();
    health.set('nats', true);
    health.drain();
    expect(health.readiness().status).toBe('draining');
    expect(health.ready).toBe(false);
  });
});

describe('startProbeServer', () => {
  let health: Health;
  let probes: ProbeServer;

  beforeEach(async () => {
    health = new Health();
    health.expect('nats');
    probes = await startProbeServer({
      port: 0,
      host: '127.0.0.1',
      health,
      metrics: new Metrics('auth'),
      logger,
    });
  });

  afterEach(() => probes.close());

  const get = (path: string, method = 'GET') => fetch(`http://127.0.0.1:${probes.port}${path}`, { method });

  it('is alive before anything it needs is there', async () => {
    expect((await get('/health/live')).status).toBe(200);
  });

  it('says 503 and what is missing until it is ready', async () => {
    const before = await get('/health/ready');
    expect(before.status).toBe(503);
    expect(await before.json()).toMatchObject({
      status: 'not_ready',
      checks: { nats: { up: false, detail: 'not started' } },
    });
    health.set('nats', true);
    expect((await get('/health/ready?verbose')).status).toBe(200);
  });

  it('serves the metrics in the text format', async () => {
    const response = await get('/metrics');
    expect(response.headers.get('content-type')).toContain('text/plain');
    expect(await response.text()).toContain('posthorn_process_cpu_seconds_total');
  });

  it('serves nothing else', async () => {
    expect((await get('/')).status).toBe(404);
    expect((await get('/health/ready', 'POST')).status).toBe(405);
  });

  it('names the variable to set when the port is in use', async () => {
    const again = startProbeServer({
      port: probes.port,
      host: '127.0.0.1',
      health,
      metrics: new Metrics('auth'),
      logger,
    });
    await expect(again).rejects.toThrow(StartError);
    await expect(again).rejects.toThrow(`port ${probes.port} on 127.0.0.1 is in use: set PORT to a free one`);
  });
});
