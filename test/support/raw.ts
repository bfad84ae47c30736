/** Bytes to a gateway as no client library would send them. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** An HTTP answer as it stood on the wire. `ended`: whether the server ended the connection. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly ended: boolean;
}

/** Sends bytes on a connection of their own; gives the first answer, once it is whole or the server hung up. */
export async function sendRaw(
  port: number,
  bytes: string | Buffer,
  timeout = 5_000,
): Promise<RawAnswer | undefined> {
  const socket = connect(port, '127.0.0.1');
  const received: Buffer[] = [];
  let ended = false;
  socket.on('data', (chunk) => received.push(chunk));
  socket.on('error', () => {});
  socket.on('close', () => {
    ended = true;
  });
  await once(socket, 'connect');
  socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  const deadline = Date.now() + timeout;
  let answer: RawAnswer | undefined;
  while (!answer && Date.now() < deadline) {
    answer = parseAnswer(Buffer.concat(received).toString('utf8'), ended);
    if (ended) break;
    await sleep(2);
  }
  socket.destroy();
  return answer;
}

function parseAnswer(text: string, ended: boolean): RawAnswer | undefined {
  const answer = text.replace(/^HTTP\/1\.1 100 [^\r]*\r\n\r\n/, '');
  const end = answer.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [line, ...lines] = answer.slice(0, end).split('\r\n');
  const headers = Object.fromEntries(
    lines.map((header) => {
      const colon = header.indexOf(':');
      return [header.slice(0, colon).toLowerCase(), header.slice(colon + 1).trim()];
    }),
  );
  const body = answer.slice(end + 4);
  if (Buffer.byteLength(body) < Number(headers['content-length'] ?? 0) && !ended) return undefined;
  return { status: Number(line!.split(' ')[1]), headers, body, ended };
}

/** Opcodes of RFC 6455. */
export const OP = { continuation: 0, text: 1, binary: 2, reserved: 3, close: 8, ping: 9, pong: 10 } as const;

export interface FrameBits {
  readonly fin?: boolean;
  readonly rsv1?: boolean;
  readonly masked?: boolean;
}

/** A frame from a client, with the bits that a test wants wrong. */
export function rawFrame(
  op: number,
  payload: string | Uint8Array = '',
  { fin = true, rsv1 = false, masked = true }: FrameBits = {},
): Buffer {
  const data = Buffer.from(payload as string);
  const first = (fin ? 0x80 : 0) | (rsv1 ? 0x40 : 0) | op;
  const mask = masked ? 0x80 : 0;
  const length =
    data.length < 126
      ? Buffer.from([mask | data.length])
      : data.length < 65_536
        ? Buffer.from([mask | 126, data.length >> 8, data.length & 0xff])
        : Buffer.from([
            mask | 127,
            0,
            0,
            0,
            0,
            ...[24, 16, 8, 0].map((bits) => (data.length >> bits) & 0xff),
          ]);
  // A mask of zeros leaves the payload as it is.
  return Buffer.concat([Buffer.from([first]), length, Buffer.alloc(masked ? 4 : 0), data]);
}

/** A socket after its upgrade, frame by frame; it answers nothing by itself. */
export class RawSocket implements AsyncDisposable {
  readonly socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#ended = true;
    });
  }

  /** @param url the signed URL of `GET /v1/sign` */
  static async open(url: string): Promise<RawSocket> {
    const { hostname, port, pathname, search } = new URL(url);
    const socket = connect(Number(port), hostname);
    const raw = new RawSocket(socket);
    await once(socket, 'connect');
    socket.write(
      `GET ${pathname}${search} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    const [head] = (await once(socket, 'data')) as [Buffer];
    const end = head.indexOf('\r\n\r\n');
    if (!head.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error(head.toString());
    raw.#received = head.subarray(end + 4);
    socket.on('data', (chunk) => {
      raw.#received = Buffer.concat([raw.#received, chunk]);
    });
    return raw;
  }

  send(...frames: Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  /** The next frame from the server; undefined where it hung up without another. */
  async next(timeout = 10_000): Promise<{ op: number; payload: Buffer } | undefined> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const frame = this.#shift();
      if (frame || (this.#ended && this.#received.length === 0)) return frame;
      if (Date.now() > deadline) throw new Error('no frame came');
      await sleep(2);
    }
  }

  /** The code of the server's close frame; 1006 where it hung up without one. */
  async closeCode(): Promise<number> {
    for (;;) {
      const frame = await this.next();
      if (!frame) return 1006;
      if (frame.op === OP.close) return frame.payload.readUInt16BE(0);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    this.socket.destroy();
    await once(this.socket, 'close');
  }

  #shift(): { op: number; payload: Buffer } | undefined {
    const bytes = this.#received;
    if (bytes.length < 2) return undefined;
    const short = bytes[1]! & 0x7f;
    const header = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (bytes.length < header) return undefined;
    const length =
      short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
    if (bytes.length < header + length) return undefined;
    this.#received = bytes.subarray(header + length);
    return { op: bytes[0]! & 0x0f, payload: bytes.subarray(header, header + length) };
  }
}
