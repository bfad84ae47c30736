import type { Redrivable } from '@posthorn/bus/platform';
import type { LetterStore } from './letter-store.js';

export interface RedriverOptions {
  readonly store: LetterStore;
  /** Stores a redrive; once, however often it is called for one. */
  readonly publish: (letter: Redrivable) => Promise<void>;
  /** Told how many letters were redriven. */
  readonly redriven: (count: number) => void;
  /** Ends a run after the step under way. */
  readonly signal: AbortSignal;
}

/** Redrives the letters that are marked for it. */
export class Redriver {
  readonly #options: RedriverOptions;

  constructor(options: RedriverOptions) {
    this.#options = options;
  }

  /**
   * Marks what waits for managers that are known now, and redrives all that is marked; what another replica has in
   * hand is left to that.
   * @throws what kept letters from being redriven
   */
  async run(): Promise<void> {
    const { store, signal } = this.#options;
    while (!signal.aborted && (await store.wake()) > 0);
    while (!signal.aborted && (await this.#round()) > 0);
  }

  /** Some letters of each audience by turns: nobody waits for another one's hundred thousand. */
  async #round(): Promise<number> {
    const { store, publish, redriven, signal } = this.#options;
    const failures: unknown[] = [];
    let count = 0;
    let audience = await store.markedAudience(undefined);
    while (audience !== undefined && !signal.aborted) {
      try {
        const some = await store.redriveSome(audience, publish);
        redriven(some);
        count += some;
      } catch (error) {
        failures.push(error);
      }
      audience = await store.markedAudience(audience);
    }
    if (failures.length > 0) throw failures[0];
    return count;
  }
}
