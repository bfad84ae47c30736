import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { awaitOn } from './awaited.js';

const IDLE = 100;

describe('a connection on which answers are waited for', () => {
  const server = createServer();
  let client: Socket;
  let socket: Socket;
  let gone: string[];

  beforeEach(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    [socket] = (await once(server, 'connection')) as [Socket];
    socket.setTimeout(IDLE);
    gone = [];
  });
  afterEach(async () => {
    client.destroy();
    socket.destroy();
    server.close();
    await once(server, 'close');
  });

  const wait = (name: string) => awaitOn(socket, () => gone.push(name));

  it('may be silent until the last of them is there', async () => {
    const timedOut = once(socket, 'timeout');
    const [first, second] = [wait('first'), wait('second')];
    first();
    first();
    expect(socket.timeout).toBe(0);
    await sleep(2 * IDLE);
    second();
    expect(socket.timeout).toBe(IDLE);
    const began = performance.now();
    await timedOut;
    expect(performance.now() - began).toBeGreaterThan(IDLE / 2);
    wait('third');
    expect(socket.timeout).toBe(0);
  });

  it('has one listener, however many there are', () => {
    const before = socket.listenerCount('close');
    const all = Array.from({ length: 20 }, (_, i) => wait(`${i}`));
    expect(socket.listenerCount('close')).toBe(before + 1);
    for (const done of all) done();
    expect(socket.listenerCount('close')).toBe(before);
  });

  it('tells those who still wait that the client has hung up', async () => {
    const done = wait('first');
    wait('second');
    wait('third');
    done();
    const closed = once(socket, 'close');
    client.destroy();
    await closed;
    expect(gone).toEqual(['second', 'third']);
  });
});
