/** A WebSocket as a carrier of frames. */
import type { Duplex } from 'node:stream';
import { CLOSE } from '@posthorn/contracts';
import type { WebSocket } from 'ws';
import { PING_FRAME } from '../hub/frame.js';
import type { Carrier, Peer } from './carrier.js';

export class SocketCarrier implements Carrier {
  readonly stream: Duplex;
  readonly ping = PING_FRAME;
  readonly #socket: WebSocket;

  /** @param stream the socket's own, for frames that are built by the hub */
  constructor(socket: WebSocket, stream: Duplex) {
    this.#socket = socket;
    this.stream = stream;
  }

  open(peer: Peer): void {
    const socket = this.#socket;
    socket.on('message', (data: Buffer, isBinary: boolean) => peer.receive(data, isBinary));
    socket.on('ping', () => peer.heard());
    socket.on('pong', () => peer.heard());
    // By now ws has said so in its close frame.
    socket.on('error', ({ code }: Error & { code?: string }) =>
      peer.broken(BROKEN[code ?? ''] ?? 'protocol'),
    );
    socket.on('close', () => peer.gone());
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(reason: keyof typeof CLOSE): void {
    const { code, reason: text } = CLOSE[reason];
    this.#socket.close(code, text);
  }

  terminate(): void {
    this.#socket.terminate();
  }
}

/** What ws calls the errors that have a close code of their own. */
const BROKEN: Readonly<Record<string, keyof typeof CLOSE>> = {
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 'tooLarge',
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 'policy',
};
