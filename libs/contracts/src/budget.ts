/** Thrown where a check has no work left to spend. */
export class Exhausted extends Error {}

/** The work that one check may do, in units of at most about 100 ns. Checks are synchronous and take turns. */
export class Budget {
  #left = 0;

  refill(units: number): void {
    this.#left = units;
  }

  /** @throws Exhausted when there was less than that left. A negative amount is given back. */
  spend(units: number): void {
    this.#left -= units;
    if (this.#left < 0) throw new Exhausted();
  }
}
