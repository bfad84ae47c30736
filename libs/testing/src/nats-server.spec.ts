import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { startNatsServer } from '../../../tools/embedded/nats.mjs';
import { startNats, startNatsCluster } from './nats-server.js';
import { tempDir } from './temp-dir.js';

describe('a NATS server for tests', () => {
  it('keeps what it stored when it is killed and comes back on the same port', async () => {
    await using server = await startNats();
    const url = server.url;
    const before = await connect({ servers: url });
    const { streams } = await jetstreamManager(before);
    await streams.add({ name: 'KEPT', subjects: ['kept.>'] });
    await jetstream(before).publish('kept.one', 'before the crash');
    await before.close();

    await server.kill();
    await server.start();

    const after = await connect({ servers: url });
    const manager = await jetstreamManager(after);
    const stored = await manager.streams.getMessage('KEPT', { last_by_subj: 'kept.one' });
    expect(stored?.string()).toBe('before the crash');
    await after.close();
  });

  it('takes messages of two MiB', async () => {
    await using server = await startNats();
    const nc = await connect({ servers: server.url });
    expect(nc.info?.max_payload).toBe(2 * 1024 * 1024);
    await nc.close();
  });

  it('listens for WebSockets where asked to', async () => {
    await using server = await startNats({ websocket: true });
    const socket = new (await import('ws')).WebSocket(`ws://127.0.0.1:${server.websocketPort}`);
    const [greeting] = await once(socket, 'message');
    expect(String(greeting)).toMatch(/^INFO /);
    socket.terminate();
  });

  it('says which variable to set when its port is taken', async () => {
    await using dir = await tempDir();
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const { port } = holder.address() as { port: number };
    await expect(startNatsServer({ dir: dir.path, port })).rejects.toThrow(
      `Port ${port}, wanted for NATS, is in use. Set NATS_PORT`,
    );
    holder.close();
  });

  it('ends a server that an earlier run left behind, and takes its place', async () => {
    await using dir = await tempDir();
    const left = await startNatsServer({ dir: dir.path });
    const next = await startNatsServer({ dir: dir.path, port: left.port });
    expect(next.pid).not.toBe(left.pid);
    await next.kill();
  });

  it('shows what the server says about a configuration it refuses', async () => {
    await expect(startNats({ config: 'no_such_setting: 1' })).rejects.toThrow(/no_such_setting/);
  });
});

describe('a NATS cluster for tests', () => {
  it('stores with three replicas, and goes on without one server', async () => {
    await using cluster = await startNatsCluster();
    const nc = await connect({ servers: cluster.url });
    try {
      const manager = await jetstreamManager(nc);
      const stream = await manager.streams.add({ name: 'R3', subjects: ['r3'], num_replicas: 3 });
      expect(stream.cluster?.replicas).toHaveLength(2);
      const leader = cluster.servers[Number(stream.cluster?.leader?.split('-')[1]) - 1];
      await leader?.kill();
      const ack = await publishUntilStored(() => jetstream(nc).publish('r3', 'still here', { timeout: 500 }));
      expect(ack.seq).toBeGreaterThan(0);
    } finally {
      await nc.close();
    }
  }, 60_000);
});

/** A publish during an election has nobody to answer it. */
async function publishUntilStored<T>(publish: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 45_000;
  for (;;) {
    try {
      return await publish();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      // Refusals come at once: asking without a pause would keep the servers from electing.
      await sleep(100);
    }
  }
}
