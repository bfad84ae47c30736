/** How a gateway's connections are sent elsewhere when it goes down. */
import { setTimeout as sleep } from 'node:timers/promises';

/** How often a part of the connections is sent elsewhere, in milliseconds. */
const STEP = 250;
/** The longest wait that a client is asked for before it comes back, in milliseconds. */
const LONGEST_AWAY = 5_000;

interface Drained {
  /** @param afterMs for how long the client is asked to wait before it comes back */
  sendElsewhere(afterMs: number): unknown;
  terminate(): void;
}

/** The open connections of one kind. */
export class Connections<T extends Drained> implements Iterable<T> {
  readonly #open = new Set<T>();
  readonly #budget: number;
  #allGone: (() => void) | undefined;

  /** @param budget how long a drain may take, in milliseconds */
  constructor(budget: number) {
    this.#budget = budget;
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#open.values();
  }

  add(connection: T): void {
    this.#open.add(connection);
  }

  remove(connection: T): void {
    this.#open.delete(connection);
    if (this.#open.size === 0) this.#allGone?.();
  }

  /** A while of its own for each client, in milliseconds. */
  pause(): number {
    return Math.round(Math.random() * Math.min(LONGEST_AWAY, this.#budget));
  }

  /**
   * Paced, so that the other gateways are not met by everybody at once; each client waits a random while. Who
   * does not go within the budget is cut off.
   */
  async drain(overdue: AbortSignal): Promise<void> {
    if (this.#open.size === 0) return;
    const gone = new Promise<void>((resolve) => {
      this.#allGone = resolve;
      overdue.addEventListener('abort', () => resolve());
    });
    const all = [...this.#open];
    const steps = Math.max(1, Math.floor(this.#budget / 2 / STEP));
    const perStep = Math.ceil(all.length / steps);
    for (let i = 0; i < all.length && !overdue.aborted; i += perStep) {
      if (i > 0) await sleep(STEP);
      for (const connection of all.slice(i, i + perStep)) void connection.sendElsewhere(this.pause());
    }
    await gone;
    for (const connection of this.#open) connection.terminate();
  }
}
