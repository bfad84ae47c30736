import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startTcpProxy } from './tcp-proxy.js';

const echo = createServer((socket) => {
  socket.on('error', () => {});
  socket.pipe(socket);
});

beforeAll(async () => {
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
});

afterAll(() => {
  echo.close();
});

const echoPort = (): number => (echo.address() as AddressInfo).port;

async function client(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return socket;
}

async function roundTrip(socket: Socket, text: string): Promise<string> {
  const answer = once(socket, 'data');
  socket.write(text);
  return String((await answer)[0]);
}

describe('a TCP proxy', () => {
  it('passes bytes both ways', async () => {
    await using proxy = await startTcpProxy(echoPort);
    const socket = await client(proxy.port);
    expect(await roundTrip(socket, 'hello')).toBe('hello');
    expect(proxy.connections).toBe(1);
    socket.destroy();
  });

  it('resets open connections and refuses new ones while it is cut', async () => {
    await using proxy = await startTcpProxy(echoPort);
    const socket = await client(proxy.port);
    await roundTrip(socket, 'hello');

    proxy.cut();
    await expect(once(socket, 'data')).rejects.toThrow(/ECONNRESET/);
    await expect(once(connect(proxy.port, '127.0.0.1'), 'data')).rejects.toThrow(/ECONNRESET/);

    proxy.restore();
    const again = await client(proxy.port);
    expect(await roundTrip(again, 'again')).toBe('again');
    again.destroy();
  });

  it('holds bytes back while it is stalled, and loses none', async () => {
    await using proxy = await startTcpProxy(echoPort);
    const socket = await client(proxy.port);
    await roundTrip(socket, 'hello');

    proxy.stall();
    const answer = once(socket, 'data');
    socket.write('late');
    const first = await Promise.race([
      answer.then(() => 'answered'),
      new Promise((done) => setTimeout(done, 100, 'silent')),
    ]);
    expect(first).toBe('silent');

    proxy.restore();
    expect(String((await answer)[0])).toBe('late');
    socket.destroy();
  });

  it('delays each direction by the time asked for', async () => {
    await using proxy = await startTcpProxy(echoPort);
    const socket = await client(proxy.port);
    proxy.delay(40);
    const started = performance.now();
    await roundTrip(socket, 'slow');
    expect(performance.now() - started).toBeGreaterThanOrEqual(79);
    socket.destroy();
  });
});
