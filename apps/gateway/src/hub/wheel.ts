/**
 * A timer wheel: one interval for all connections, where a timer for each would be tens of thousands.
 * Resolution is one tick.
 */

/** What is called when its time has come. */
export type Due = () => void;

export class Wheel {
  readonly #tick: number;
  readonly #slots = new Map<number, Set<Due>>();
  readonly #now: () => number;
  #last: number;
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param tick milliseconds
   * @param now milliseconds, monotonic or not: a jump forward calls what it passes
   */
  constructor(tick = 1_000, now: () => number = Date.now) {
    this.#tick = tick;
    this.#now = now;
    this.#last = Math.floor(now() / tick);
  }

  start(): void {
    this.#timer = setInterval(() => this.turn(), this.#tick);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Calls `due` once, at or within a tick after `at` (milliseconds on the wheel's clock). */
  at(at: number, due: Due): { cancel(): void } {
    const slot = Math.max(Math.ceil(at / this.#tick), this.#last + 1);
    let entries = this.#slots.get(slot);
    if (!entries) {
      entries = new Set();
      this.#slots.set(slot, entries);
    }
    entries.add(due);
    return { cancel: () => this.#cancel(slot, due) };
  }

  /** Calls whatever is due; the interval does it, a test may. */
  turn(): void {
    const current = Math.floor(this.#now() / this.#tick);
    // After a pause of the process, slots are fewer than the ticks that passed.
    if (current - this.#last > this.#slots.size) {
      const passed = [...this.#slots.keys()].filter((slot) => slot <= current).sort((a, b) => a - b);
      this.#last = current;
      for (const slot of passed) this.#run(slot);
      return;
    }
    while (this.#last < current) {
      this.#last++;
      this.#run(this.#last);
    }
  }

  #run(slot: number): void {
    const entries = this.#slots.get(slot);
    if (!entries) return;
    this.#slots.delete(slot);
    for (const due of entries) due();
  }

  #cancel(slot: number, due: Due): void {
    const entries = this.#slots.get(slot);
    if (entries?.delete(due) && entries.size === 0) this.#slots.delete(slot);
  }
}
