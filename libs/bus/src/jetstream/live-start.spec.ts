import { describe, expect, it } from '@jest/globals';
import { jetstreamManager } from '@nats-io/jetstream';
import { parseTopic, STREAMS } from '@posthorn/contracts';
import {
  Collected,
  eventually,
  openBus,
  prepareBus,
  startNats,
  startTcpProxy,
  type TestBus,
} from '@posthorn/testing';
import type { BusEvent } from '../port.js';

const interest = { audience: 'acme', scope: 'global', filter: '-.ticks' } as const;
const publish = ({ bus }: TestBus, n: number) =>
  bus.publish({ ...interest, topic: parseTopic('ticks'), message: { n }, principal: 'p', source: 'test' });
const seen = async ({ nc }: TestBus, wanted: string) => {
  for await (const { type } of nc.status()) if (type === wanted) return;
};

describe('the beginning of a live subscription', () => {
  it('is a line: nothing up to it is delivered, everything after it is, in order, at full speed', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using publisher = await openBus(nats);
    await using subscriber = await openBus(nats);
    let publishing = true;
    const pump = async () => {
      for (let n = 0; publishing; ) {
        await Promise.all(Array.from({ length: 64 }, () => publish(publisher, n++)));
      }
    };
    const pumping = pump();

    for (let i = 0; i < 60; i++) {
      const heard = new Collected<BusEvent>();
      // From the publisher's own connection too, where nothing lies between a publish and its copy.
      const { bus } = i % 2 ? subscriber : publisher;
      const live = bus.live(interest, heard.add);
      const { sequence } = await live.started;
      expect(heard.items).toEqual([]);
      const events = await heard.until(30);
      live.close();
      const sequences = events.map((event) => event.position.sequence);
      expect(sequences).toEqual(events.map((_, n) => sequence + 1 + n));
    }
    publishing = false;
    await pumping;
    expect([publisher.seen.gaps, subscriber.seen.gaps]).toEqual([0, 0]);
  });

  it('is known before the first event', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    const order: string[] = [];
    const live = process.bus.live(interest, () => order.push('event'));
    const publishing = publish(process, 1);
    void live.started.then(() => order.push('started'));
    await publishing;
    await publish(process, 2);
    await process.nc.flush();
    expect(order[0]).toBe('started');
    live.close();
  });

  it('is unavailable where the stream cannot be asked', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    await (await jetstreamManager(process.nc)).streams.delete(STREAMS.global.name);
    await expect(process.bus.live(interest, () => {}).started).rejects.toMatchObject({ code: 'unavailable' });
    const gone = seen(process, 'disconnect');
    await nats.stop();
    await gone;
    await expect(process.bus.horizon('local')).rejects.toMatchObject({ code: 'unavailable' });
  });
});

describe('a live subscription outlives', () => {
  it('a restart of the server', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    const heard = new Collected<BusEvent>();
    const live = process.bus.live(interest, heard.add);
    await live.started;
    await publish(process, 1);
    await heard.until(1);

    const back = seen(process, 'reconnect');
    await nats.stop();
    await nats.start();
    await back;
    await publish(process, 2);
    expect((await heard.until(2)).map(({ message }) => message.n)).toEqual([1, 2]);
    expect(process.seen.gaps).toBe(0);

    live.close();
  });

  it('a cut connection: what was stored meanwhile comes before anything later', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using link = await startTcpProxy(nats.port);
    await using process = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    await using other = await openBus(nats);
    const heard = new Collected<BusEvent>();
    const live = process.bus.live(interest, heard.add);
    await live.started;
    const back = seen(process, 'reconnect');
    link.cut();
    await publish(other, 1);
    link.restore();
    await back;
    await process.nc.flush();
    await publish(other, 2);
    expect((await heard.until(2)).map(({ message }) => message.n)).toEqual([1, 2]);
    expect(process.seen.gaps).toBe(1);
    live.close();
  });

  it('its stream: in the one that takes its place sequences begin anew', async () => {
    await using nats = await startNats();
    await prepareBus(nats);
    await using process = await openBus(nats);
    const heard = new Collected<BusEvent>();
    const live = process.bus.live(interest, heard.add);
    const { epoch } = await live.started;
    for (const n of [1, 2, 3]) await publish(process, n);
    await heard.until(3);

    await process.bus.jsm.streams.delete(STREAMS.global.name);
    await prepareBus(nats);
    await eventually(async () => (await process.bus.horizon('global')).epoch !== epoch);
    const position = await process.bus.horizon('global');
    const receipt = await publish(process, 4);
    expect(receipt.position).toEqual({ epoch: position.epoch, sequence: 1 });
    const events = await heard.until(4);
    expect(events[3]).toMatchObject({ message: { n: 4 }, position: receipt.position });
    live.close();
  });
});
