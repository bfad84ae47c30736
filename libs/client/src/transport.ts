/** The two ways to the gateway's frames: a WebSocket, and a stream over HTTP where no WebSocket gets through. */
import { PosthornError } from './error.js';
import { parseFrame, type ServerFrame } from './frame.js';
import type { Http } from './http.js';
import type { Wanted } from './machine/effect.js';
import type { WebSocketConstructor } from './types.js';

/** What a connection tells. After `gone` or `failed` it tells nothing more. */
export interface Peer {
  frame(frame: ServerFrame): void;
  gone(code: number): void;
  failed(error: unknown): void;
}

/** A connection that is opening or open. */
export interface Connection {
  send(text: string): void;
  /** Ends it. Its peer is told nothing more. */
  drop(): void;
}

export function openSocket(Socket: WebSocketConstructor, url: string, key: string, peer: Peer): Connection {
  const socket = new Socket(url, ['posthorn.v1', `posthorn.key.${key}`]);
  socket.onmessage = ({ data }: { data: unknown }) => {
    const frame = parseFrame(String(data));
    if (frame) peer.frame(frame);
  };
  socket.onclose = ({ code }: { code: number }) => {
    socket.onclose = null;
    peer.gone(code);
  };
  // What follows says the same.
  socket.onerror = () => {};
  return {
    send: (text) => {
      try {
        socket.send(text);
      } catch {
        // It is closing: what was to be sent is sent again on the next one.
      }
    },
    drop: () => {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close(1000);
    },
  };
}

export function openStream(
  http: Http,
  token: string,
  subscriptions: readonly Wanted[],
  peer: Peer,
): Connection {
  const abort = new AbortController();
  const read = async () => {
    const response = await http.open({
      method: 'POST',
      path: '/v1/stream',
      token,
      body: { subscriptions },
      headers: { Accept: 'text/event-stream' },
      signal: abort.signal,
    });
    const reader = response.body?.getReader();
    if (!reader) throw new PosthornError('protocol', 'No stream');
    const decoder = new TextDecoder();
    const lines = new Lines((data) => {
      const frame = parseFrame(data);
      if (frame && !abort.signal.aborted) peer.frame(frame);
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done || abort.signal.aborted) return;
      lines.push(decoder.decode(value, { stream: true }));
    }
  };
  read().then(
    () => abort.signal.aborted || peer.gone(0),
    (error) => abort.signal.aborted || peer.failed(error),
  );
  return { send: () => {}, drop: () => abort.abort() };
}

/** Text of an event stream, in pieces of any length: the data of each event. One that was cut off is none. */
export class Lines {
  readonly #event: (data: string) => void;
  #rest = '';
  #data: string[] = [];

  constructor(event: (data: string) => void) {
    this.#event = event;
  }

  push(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() as string;
    for (const line of lines) this.#take(line.replace(/\r$/, ''));
  }

  #take(line: string): void {
    if (line.startsWith('data:')) this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
    if (line !== '' || this.#data.length === 0) return;
    const data = this.#data.join('\n');
    this.#data = [];
    this.#event(data);
  }
}
