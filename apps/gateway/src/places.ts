/** How many connections each user may have at once at this gateway. */
import { type Principal, ProblemError, principalId } from '@posthorn/contracts';

export class Places {
  readonly #limit: number;
  readonly #what: string;
  readonly #taken = new Map<string, number>();

  /** @param what there is a limit to, in the plural */
  constructor(limit: number, what: string) {
    this.#limit = limit;
    this.#what = what;
  }

  /** How many users have one. */
  get size(): number {
    return this.#taken.size;
  }

  /**
   * Takes a place. Who is not told apart from others, because the token has neither a user nor an id, has no limit.
   * @returns gives it back; later calls change nothing
   * @throws ProblemError `subscription_limit`
   */
  take(principal: Principal): () => void {
    const user = userOf(principal);
    if (user === undefined) return () => {};
    const taken = this.#taken.get(user) ?? 0;
    if (taken >= this.#limit) {
      throw new ProblemError('subscription_limit', `A user may have ${this.#limit} ${this.#what} open`);
    }
    this.#taken.set(user, taken + 1);
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      const left = this.#taken.get(user)! - 1;
      if (left > 0) this.#taken.set(user, left);
      else this.#taken.delete(user);
    };
  }
}

function userOf(principal: Principal): string | undefined {
  const { audience, sub, tokenId } = principal;
  if (sub === null) return tokenId === undefined ? undefined : JSON.stringify([audience, null, tokenId]);
  return JSON.stringify([audience, principalId(principal)]);
}
