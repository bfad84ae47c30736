/** Waits for changes of something that others change, such as the frames that a client has taken. */
export class Changes {
  readonly #waiting = new Set<() => void>();
  readonly #describe: () => string;

  /** @param describe what there is, for the error of whoever waits in vain */
  constructor(describe: () => string) {
    this.#describe = describe;
  }

  /** Something has changed. */
  tell(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /**
   * Resolves with the next change.
   * @param deadline milliseconds since 1970
   * @throws once the deadline has passed, saying what there is
   */
  next(deadline: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(wake);
        reject(new Error(`nothing came; there is ${this.#describe().slice(0, 2_000)}`));
      }, deadline - Date.now());
      this.#waiting.add(wake);
    });
  }
}
