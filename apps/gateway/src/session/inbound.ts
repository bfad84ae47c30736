/**
 * Frames of one connection on their way in: taken one after another, and read no faster than they are taken
 * and than the pace allows. A peer that sends more is not told, it is read more slowly: TCP holds it back.
 */
import type { Wheel } from '../hub/wheel.js';
import type { Bucket } from './limits.js';

/** Frames that may wait to be taken before the socket is no longer read. */
const MAX_WAITING = 64;

export interface InboundOptions<F> {
  /** What is read: the socket. */
  readonly source: { pause(): void; resume(): void };
  /** Frames of any kind that are read in a while. */
  readonly pace: Bucket;
  readonly wheel: Wheel;
  /** Takes a frame. A promise is waited for before the next one is taken. MUST NOT throw or reject. */
  readonly take: (frame: F) => Promise<void> | undefined;
}

export class Inbound<F> {
  readonly #options: InboundOptions<F>;
  #waiting: F[] = [];
  #working = false;
  #ended = false;
  /** Paused for good. */
  #finishing = false;
  /** Paused because too many frames wait. */
  #full = false;
  /** Paused because frames came too fast, until this is due. */
  #debt: { cancel(): void } | undefined;
  readonly #idle: (() => void)[] = [];

  constructor(options: InboundOptions<F>) {
    this.#options = options;
  }

  /** Whether the peer is kept waiting: then its silence means nothing. */
  get paused(): boolean {
    return this.#finishing || this.#full || this.#debt !== undefined;
  }

  /** Counts a frame of any kind, control frames too, against the pace. */
  count(): void {
    const seconds = this.#options.pace.overdraw(Date.now());
    if (seconds === 0 || this.#debt || this.#ended) return;
    this.#options.source.pause();
    this.#wait(seconds);
  }

  push(frame: F): void {
    if (this.#ended) return;
    if (!this.#working) {
      const slow = this.#options.take(frame);
      if (slow) void this.#work(slow);
      return;
    }
    if (this.#waiting.push(frame) <= MAX_WAITING || this.#full) return;
    this.#full = true;
    this.#options.source.pause();
  }

  /** Reads no more. Resolves once everything that was read is taken. */
  async finish(): Promise<void> {
    this.#finishing = true;
    this.#options.source.pause();
    if (this.#working) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Takes nothing more. What the peer still sends is read and forgotten, so that its close frame is seen. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#waiting = [];
    this.#debt?.cancel();
    this.#options.source.resume();
  }

  async #work(slow: Promise<void>): Promise<void> {
    this.#working = true;
    await slow;
    while (this.#waiting.length > 0) {
      const next = this.#options.take(this.#waiting.shift()!);
      if (next) await next;
      if (this.#full && this.#waiting.length <= MAX_WAITING / 2) {
        this.#full = false;
        this.#readOn();
      }
    }
    this.#working = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** What was read before the pause took effect adds to the debt. */
  #wait(seconds: number): void {
    const { pace, wheel } = this.#options;
    this.#debt = wheel.at(Date.now() + seconds * 1_000, () => {
      const left = pace.debt(Date.now());
      if (left > 0) return this.#wait(left);
      this.#debt = undefined;
      this.#readOn();
    });
  }

  #readOn(): void {
    if (!this.paused && !this.#ended) this.#options.source.resume();
  }
}
