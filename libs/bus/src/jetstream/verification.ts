/** Rounds of verification: many may ask at the same time how complete something is, one question is on its way. */

interface Round {
  upTo: number;
  readonly done: Promise<void>;
  readonly begin: () => void;
}

export class Verification {
  readonly #complete: (upTo: number) => Promise<void>;
  #running: Round | undefined;
  #next: Round | undefined;

  /** @param complete resolves once everything up to a place was handed out; never called twice at a time */
  constructor(complete: (upTo: number) => Promise<void>) {
    this.#complete = complete;
  }

  /**
   * Resolves once everything up to this place was handed out. Who comes while a round is under way and wants no
   * more than it does waits for it, everybody else for the next one.
   * @throws what `complete` throws, for everybody of its round
   */
  upTo(place: number): Promise<void> {
    if (this.#running && place <= this.#running.upTo) return this.#running.done;
    this.#next ??= this.#newRound();
    this.#next.upTo = Math.max(this.#next.upTo, place);
    const { done } = this.#next;
    this.#beginNext();
    return done;
  }

  #newRound(): Round {
    let begin = () => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const round: Round = { upTo: 0, begin, done: begun.then(() => this.#complete(round.upTo)) };
    const over = () => {
      this.#running = undefined;
      this.#beginNext();
    };
    round.done.then(over, over);
    return round;
  }

  #beginNext(): void {
    if (this.#running || !this.#next) return;
    this.#running = this.#next;
    this.#next = undefined;
    this.#running.begin();
  }
}
