import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { type BusEvent } from '@posthorn/bus';
import { parseTopic } from '@posthorn/contracts';
import { WebSocket } from 'ws';
import { broadcastFrame, jsonFrame, messageFrame, textFrame } from './frame.js';

/** What a real client reads off these bytes. */
async function readBack(frames: readonly Uint8Array[]): Promise<string[]> {
  const server = createServer((socket) => {
    socket.once('data', (request) => {
      const key = /Sec-WebSocket-Key: (.+)\r\n/i.exec(request.toString())![1];
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      );
      socket.end(Buffer.concat(frames));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const texts: string[] = [];
  client.on('message', (data, isBinary) => texts.push(isBinary ? 'binary' : data.toString()));
  client.on('error', () => {});
  await once(client, 'close');
  server.close();
  return texts;
}

function event(message: object, id = 'e1'): BusEvent {
  const topic = parseTopic('system/events');
  return {
    audience: 'acme',
    scope: 'global',
    instance: null,
    path: topic.path,
    topic,
    id,
    position: { epoch: 'e', sequence: 7 },
    kind: undefined,
    bytes: Buffer.from(JSON.stringify(message)),
    message: message as Record<string, unknown>,
    traceparent: undefined,
    time: undefined,
  };
}

describe('frames', () => {
  it('are read back by a client at each boundary of the length field', async () => {
    const texts = [0, 1, 125, 126, 65_535, 65_536, 70_000].map((length) => 'x'.repeat(length));
    const frames = texts.map((text) => textFrame(Buffer.from(text)));
    expect(await readBack(frames)).toEqual(texts);
  });

  it('carry the payload and escape what stands around it', async () => {
    const message = { text: 'grüße 🎉 "quoted"\n', n: [1, null] };
    const name = 'odd"\\\u2028name';
    const [first, second, third] = await readBack([
      messageFrame(event(message, 'id"1'), name),
      broadcastFrame(event(message)),
      jsonFrame({ action: 'welcome', ref: undefined }),
    ]);
    expect(JSON.parse(first!)).toEqual({
      action: 'message',
      topic: name,
      id: 'id"1',
      position: 'e-7',
      message,
    });
    expect(JSON.parse(second!)).toEqual({ action: 'broadcast', id: 'e1', position: 'e-7', message });
    expect(JSON.parse(third!)).toEqual({ action: 'welcome' });
  });
});
