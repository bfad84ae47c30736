import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { GeneratorProcess } from './generator-process.mjs';
import { faultsOf } from './workload.mjs';

/** How often a client is sent the message of that number. */
type Copies = (sequence: number) => number;

describe('A load generator', () => {
  let server: WebSocketServer;
  let generator: GeneratorProcess;
  let copies: Copies;

  beforeEach(async () => {
    copies = () => 1;
    server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    server.on('connection', (socket) => {
      socket.on('message', (data) => {
        const { action, topic, message } = JSON.parse(String(data));
        if (action === 'subscribe') return socket.send(JSON.stringify({ action: 'subscribed', topic }));
        const frame = JSON.stringify({ action: 'message', topic, message });
        const sequence = Number(message.seq.slice(2));
        const subscribers = [...server.clients].filter((client) => client !== socket);
        for (const client of subscribers) {
          for (let copy = 0; copy < copies(sequence); copy++) client.send(frame);
        }
      });
    });
    await once(server, 'listening');
    generator = new GeneratorProcess();
  });

  afterEach(async () => {
    await generator.end();
    for (const client of server.clients) client.terminate();
    server.close();
  });

  async function faults(): Promise<string[]> {
    const { port } = server.address() as AddressInfo;
    const target = { dialect: 'courier', port, path: '/' } as const;
    await generator.ask('open', { target, sockets: 3, topics: 1, publishers: 1, size: 128 });
    await generator.ask('publish', { count: 10 });
    return faultsOf(await generator.ask('finish', { stallMs: 1_000 }));
  }

  it('finds no fault where every client gets every message once', async () => {
    expect(await faults()).toEqual([]);
  });

  it('reports what a server lost', async () => {
    copies = (sequence) => (sequence === 4 ? 0 : 1);
    expect(await faults()).toEqual(['missing: 3']);
  });

  it('reports what a server doubled', async () => {
    copies = (sequence) => (sequence === 9 ? 2 : 1);
    expect(await faults()).toEqual(['doubled: 3']);
  });

  it('reports connections that a server broke', async () => {
    server.on('connection', (socket) => {
      socket.on('message', () => {
        const [first] = server.clients;
        if (server.clients.size === 4 && first?.readyState === WebSocket.OPEN) first.close(4408, 'too slow');
      });
    });
    expect(await faults()).toEqual(
      expect.arrayContaining(['connections lost: 1', 'closed with 4408 too slow']),
    );
  });
});
