/** What waits to be written to one connection. Bounded: a peer that does not read is given up. */
import type { Writable } from 'node:stream';
import type { Peak, Tally } from '@posthorn/service';
import type { Flushable, Turn } from './turn.js';

export interface OutboxOptions {
  readonly turn: Turn;
  /** The connection's stream; whole frames are written to it, nothing else of ours is. */
  readonly stream: Writable;
  /** Bytes that may wait in the stream. */
  readonly limit: number;
  /** Counts bytes written. */
  readonly sent: Tally;
  /** Sees how much waits in the stream. */
  readonly buffered: Peak;
  /** Called once when the limit is passed; nothing is written afterwards. */
  readonly overflow: () => void;
}

/** Takes whole frames on their way to a connection. */
export type Sink = Pick<Outbox, 'send' | 'room'>;

export class Outbox implements Flushable {
  readonly #options: OutboxOptions;
  /** What waits: most often one batch, for which no list is made. */
  #first: Uint8Array | undefined;
  #more: Uint8Array[] = [];
  /** Bytes in them. */
  #queued = 0;
  #closed = false;
  /** Those who wait for {@link room}. */
  #waiting: (() => void)[] = [];
  /** Whether the stream is waited for on their behalf. */
  #awaiting = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** Queues whole frames for the end of this turn. */
  send(frames: Uint8Array): void {
    if (this.#closed) return;
    this.#queued += frames.length;
    if (this.#first) {
      this.#more.push(frames);
    } else {
      this.#first = frames;
      this.#options.turn.outbox(this);
    }
  }

  /**
   * For whoever has more to send than the peer may read at once: undefined where there is room, else a promise
   * to wait for before asking again. Half of the limit is left to live events.
   */
  room(): Promise<void> | undefined {
    const { stream, limit } = this.#options;
    if (this.#closed || this.#queued + stream.writableLength < limit / 2) return undefined;
    return new Promise((resolve) => {
      if (this.#waiting.push(resolve) === 1 && !this.#first) this.#await();
    });
  }

  flush(): void {
    const first = this.#first;
    if (!first) return;
    const more = this.#more;
    const queued = this.#queued;
    this.#first = undefined;
    if (more.length > 0) this.#more = [];
    this.#queued = 0;
    const { stream, limit, sent, buffered, overflow } = this.#options;
    if (this.#closed || stream.destroyed || !stream.writable) return;
    const waiting = stream.writableLength;
    buffered.see(waiting);
    if (waiting > limit) {
      this.#end();
      overflow();
      return;
    }
    sent.inc(queued);
    if (more.length === 0) {
      stream.write(first);
    } else {
      stream.cork();
      stream.write(first);
      for (const frames of more) stream.write(frames);
      stream.uncork();
    }
    if (this.#waiting.length > 0) this.#await();
  }

  /** Writes what waits, then takes nothing more. */
  close(): void {
    this.flush();
    this.#end();
  }

  /** Forgets what waits, and takes nothing more: nothing may follow a close frame. */
  drop(): void {
    this.#first = undefined;
    this.#more = [];
    this.#end();
  }

  #end(): void {
    this.#closed = true;
    this.#wake();
  }

  /** Wakes those who wait once the stream has written what it has. One listener serves all of them. */
  #await(): void {
    if (this.#awaiting) return;
    this.#awaiting = true;
    const wake = () => {
      this.#awaiting = false;
      this.#wake();
    };
    const { stream } = this.#options;
    if (stream.writableNeedDrain) stream.once('drain', wake);
    else setImmediate(wake);
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
