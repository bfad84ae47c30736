/** The user's JWT: asked for once for all who need it, kept until somebody says that it is no longer good. */
import { PosthornError } from './error.js';

/** Milliseconds that `getToken` may take. */
const PATIENCE = 15_000;

export class Tokens {
  readonly #getToken: () => string | Promise<string>;
  #token: string | undefined;
  #asking: Promise<string> | undefined;

  constructor(getToken: () => string | Promise<string>) {
    this.#getToken = getToken;
  }

  /**
   * @param not one that is no longer good
   * @throws PosthornError `token_failed`
   */
  get(not?: string): Promise<string> {
    if (this.#token !== undefined && this.#token !== not) return Promise.resolve(this.#token);
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #ask(): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const tooLong = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('Too late')), PATIENCE);
    });
    try {
      const token = await Promise.race([(async () => this.#getToken())(), tooLong]);
      if (typeof token !== 'string' || token === '') throw new TypeError('No text');
      this.#token = token;
      return token;
    } catch (cause) {
      throw new PosthornError('token_failed', 'No token', { cause });
    } finally {
      clearTimeout(timer);
    }
  }
}
