/** Collects what a callback is given, and says when there is enough of it. */
export class Collected<T> {
  readonly items: T[] = [];
  readonly #waiting = new Set<() => void>();

  /** The callback. */
  readonly add = (item: T): void => {
    this.items.push(item);
    for (const look of [...this.#waiting]) look();
  };

  /**
   * Resolves with everything so far once there are that many items, or once `enough` says so.
   * @throws after 30 s, saying what there is
   */
  until(enough: number | ((items: readonly T[]) => boolean)): Promise<readonly T[]> {
    const satisfied = () => (typeof enough === 'number' ? this.items.length >= enough : enough(this.items));
    return new Promise((resolve, reject) => {
      const settle = (end: () => void) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        end();
      };
      const look = () => {
        if (satisfied()) settle(() => resolve(this.items));
      };
      const timer = setTimeout(() => {
        settle(() => reject(new Error(`only ${this.items.length} came`)));
      }, 30_000);
      this.#waiting.add(look);
      look();
    });
  }
}
