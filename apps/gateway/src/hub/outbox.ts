/** What waits to be written to one connection. Bounded: a peer that does not read is given up. */
import type { Duplex } from 'node:stream';
import type { Flushable, Turn } from './turn.js';

export interface OutboxOptions {
  readonly turn: Turn;
  /** The connection's stream; whole frames are written to it, nothing else of ours is. */
  readonly stream: Duplex;
  /** Bytes that may wait in the stream. */
  readonly limit: number;
  /** Called once when the limit is passed; nothing is written afterwards. */
  readonly overflow: () => void;
}

export class Outbox implements Flushable {
  readonly #options: OutboxOptions;
  #frames: Uint8Array[] = [];
  #closed = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** Queues whole frames for the end of this turn. */
  send(frames: Uint8Array): void {
    if (this.#closed) return;
    if (this.#frames.push(frames) === 1) this.#options.turn.outbox(this);
  }

  flush(): void {
    const frames = this.#frames;
    if (frames.length === 0) return;
    this.#frames = [];
    const { stream, limit, overflow } = this.#options;
    if (this.#closed || stream.destroyed || !stream.writable) return;
    if (stream.writableLength > limit) {
      this.#closed = true;
      overflow();
      return;
    }
    if (frames.length === 1) {
      stream.write(frames[0]);
      return;
    }
    stream.cork();
    for (const frame of frames) stream.write(frame);
    stream.uncork();
  }

  /** Writes what waits, then takes nothing more. */
  close(): void {
    this.flush();
    this.#closed = true;
  }

  /** Forgets what waits, and takes nothing more: nothing may follow a close frame. */
  drop(): void {
    this.#frames = [];
    this.#closed = true;
  }
}
