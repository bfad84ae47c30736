/** A client of the Courier face for tests: REST calls, and sockets whose frames can be awaited. */
import { once } from 'node:events';
import { Changes } from '@posthorn/testing';
import { type ClientOptions, WebSocket } from 'ws';

/** A frame from the server, or how the socket ended. */
export interface Frame {
  readonly action: string;
  readonly [member: string]: unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly body: any;
}

/** A call with a JSON body (an object), a raw one (a text), or none. */
export async function call(
  base: string,
  token: string | undefined,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<Answer> {
  const response = await fetch(base + path, {
    method,
    ...(signal ? { signal } : {}),
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const json = (response.headers.get('content-type') ?? '').includes('json');
  return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
}

/** One socket. Frames are kept in the order in which they came. */
export class CourierSocket implements AsyncDisposable {
  readonly frames: Frame[] = [];
  readonly socket: WebSocket;
  closed: { code: number; reason: string } | undefined;
  readonly #changes = new Changes(() => JSON.stringify(this.frames.slice(-5)));

  constructor(url: string, protocols: string[] = [], options: ClientOptions = {}) {
    this.socket = new WebSocket(url, protocols, options);
    this.socket.on('message', (data) => {
      this.frames.push(JSON.parse(data.toString()));
      this.#changes.tell();
    });
    this.socket.on('error', () => {});
    this.socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      this.#changes.tell();
    });
  }

  /** A socket that has been welcomed. */
  static async open(base: string, token: string): Promise<CourierSocket> {
    const { status, body } = await call(base, token, 'GET', '/v1/sign');
    if (status !== 200) throw new Error(`GET /v1/sign answered ${status}: ${JSON.stringify(body)}`);
    const socket = new CourierSocket(`${base.replace('http', 'ws')}/ws?token=${body.key}`);
    await socket.next('welcome');
    return socket;
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** The first frame, from `from` on, that the predicate takes; waits for it. */
  async find(predicate: (frame: Frame) => boolean, from = 0, timeout = 10_000): Promise<Frame> {
    const deadline = Date.now() + timeout;
    for (let i = from; ; i++) {
      while (i >= this.frames.length) {
        if (this.closed) throw new Error(`closed with ${this.closed.code} ${this.closed.reason}`);
        await this.#changes.next(deadline);
      }
      if (predicate(this.frames[i]!)) return this.frames[i]!;
    }
  }

  /** The first frame of an action; with `ref`, the answer to that frame. */
  next(action: string, ref?: string): Promise<Frame> {
    return this.find((frame) => frame.action === action && (ref === undefined || frame.ref === ref));
  }

  /** Waits until so many frames of an action have come. */
  async count(action: string, n: number, timeout = 20_000): Promise<Frame[]> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const found = this.frames.filter((frame) => frame.action === action);
      if (found.length >= n) return found;
      await this.#changes.next(deadline);
    }
  }

  /** Subscribes and waits for the answer. */
  async subscribe(topic: string, since?: string): Promise<Frame> {
    const ref = `sub-${topic}-${this.frames.length}`.slice(0, 256);
    this.send({ action: 'subscribe', topic, since, ref });
    const answer = await this.find((frame) => frame.ref === ref);
    if (answer.action !== 'subscribed') throw new Error(JSON.stringify(answer));
    return answer;
  }

  /** A round trip: whatever the server sent before it is here when this resolves. The answer says where it stands. */
  async settle(): Promise<Frame> {
    const from = this.frames.length;
    this.send({ action: 'ping' });
    return this.find((frame) => frame.action === 'pong', from);
  }

  async end(): Promise<{ code: number; reason: string }> {
    const deadline = Date.now() + 15_000;
    while (!this.closed) await this.#changes.next(deadline);
    return this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    this.socket.terminate();
    if (this.socket.readyState !== WebSocket.CLOSED) await once(this.socket, 'close');
  }
}

/** What an upgrade is answered with when it is refused. */
export async function refusedUpgrade(
  url: string,
  protocols: string[] = [],
  options: ClientOptions = {},
): Promise<number> {
  const socket = new WebSocket(url, protocols, options);
  return new Promise((resolve, reject) => {
    socket.on('unexpected-response', (_, response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    socket.on('open', () => {
      socket.terminate();
      reject(new Error('the upgrade was accepted'));
    });
    socket.on('error', () => {});
  });
}
