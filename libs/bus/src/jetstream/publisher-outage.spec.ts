import { describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { STREAMS } from '@posthorn/contracts';
import { draftOf, openBus, prepareBus, startNats, startTcpProxy } from '@posthorn/testing';

const draft = (n: number) => draftOf('system/events', { n }, { id: `event-${n}` });

async function storedIds(url: string): Promise<string[]> {
  const nc = await connect({ servers: url });
  const { streams } = await jetstreamManager(nc);
  const { state } = await streams.info(STREAMS.global.name);
  const ids: string[] = [];
  for (let seq = 1; seq <= state.last_seq; seq++) {
    ids.push((await streams.getMessage(STREAMS.global.name, { seq }))!.header!.get('ce-id'));
  }
  await nc.close();
  return ids;
}

describe('while NATS is away', () => {
  it('a publish is unavailable at once, and is not stored when NATS is back', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    await process.bus.publish(draft(1));

    const disconnected = (async () => {
      for await (const { type } of process.nc.status()) if (type === 'disconnect') return;
    })();
    await nats.stop();
    await disconnected;
    const started = performance.now();
    const refused = await Promise.allSettled([2, 3, 4].map((n) => process.bus.publish(draft(n))));
    expect(performance.now() - started).toBeLessThan(3_000);
    for (const outcome of refused) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'unavailable', retryAfter: 1 } });
    }
    expect(process.seen.refused).toEqual(['unavailable', 'unavailable', 'unavailable']);

    const back = (async () => {
      for await (const { type } of process.nc.status()) if (type === 'reconnect') return;
    })();
    await nats.start();
    await back;
    await process.bus.publish(draft(5));
    expect(await storedIds(nats.url)).toEqual(['event-1', 'event-5']);
  });

  it('a publish in flight ends with the connection, not when its time is up', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using link = await startTcpProxy(nats.port);
    await using process = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    await process.bus.publish(draft(1));
    link.stall();
    const waiting = process.bus.publish(draft(2));
    const started = performance.now();
    link.reset();
    await expect(waiting).rejects.toMatchObject({ code: 'unavailable' });
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  it('a server that does not answer is unavailable, and the same id is stored once when it goes on', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using link = await startTcpProxy(nats.port);
    await using process = await openBus({ url: `nats://127.0.0.1:${link.port}` }, { ackTimeout: 200 });
    await process.bus.publish(draft(1));
    link.stall();
    await expect(process.bus.publish(draft(2))).rejects.toMatchObject({ code: 'unavailable' });
    link.restore();
    const receipt = await process.bus.publish(draft(2));
    expect(receipt).toMatchObject({ id: 'event-2', position: { sequence: 2 } });
    expect(await storedIds(nats.url)).toEqual(['event-1', 'event-2']);
  });

  it('a slow link delays publishes and keeps their order', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using link = await startTcpProxy(nats.port);
    await using process = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    link.delay(100);
    const receipts = await Promise.all([1, 2, 3, 4, 5].map((n) => process.bus.publish(draft(n))));
    expect(receipts.map(({ position }) => position!.sequence)).toEqual([1, 2, 3, 4, 5]);
    expect(await storedIds(nats.url)).toEqual([1, 2, 3, 4, 5].map((n) => `event-${n}`));
  });
});
