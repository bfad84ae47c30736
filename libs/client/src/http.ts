/** Calls to the gateway: one exchange each, and its failures as errors of the one catalogue. */
import { type Finding, PosthornError, type PosthornErrorCode } from './error.js';
import type { Fetch } from './types.js';

/** Milliseconds that an answer may take. */
const PATIENCE = 15_000;

export interface Call {
  readonly method: string;
  /** From the gateway's base: `/v1/sign`. */
  readonly path: string;
  readonly token: string;
  readonly body?: unknown;
  /** The body as JSON, in the place of `body`. */
  readonly json?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Answer {
  readonly body: unknown;
  readonly headers: Headers;
}

export class Http {
  readonly #base: string;
  readonly #fetch: Fetch;

  /** @param url the gateway's, http(s) or ws(s) */
  constructor(url: string, fetch: Fetch) {
    this.#base = url.replace(/^ws/, 'http').replace(/\/+$/, '');
    // A browser's own refuses to be called as a method of something else.
    this.#fetch = (input, init) => fetch(input, init);
  }

  /** Where sockets are. */
  get socketUrl(): string {
    return `${this.#base.replace(/^http/, 'ws')}/ws`;
  }

  /**
   * @param signals any of them ends it
   * @throws PosthornError
   */
  async call(call: Call, ...signals: (AbortSignal | undefined)[]): Promise<Answer> {
    const abort = new AbortController();
    const stop = () => abort.abort();
    const timer = setTimeout(stop, PATIENCE);
    for (const signal of signals) signal?.addEventListener('abort', stop);
    const isAborted = () => signals.some((signal) => signal?.aborted);
    try {
      if (isAborted()) stop();
      const response = await this.open({ ...call, signal: abort.signal });
      const text = await response.text();
      return { body: text === '' ? undefined : JSON.parse(text), headers: response.headers };
    } catch (cause) {
      if (cause instanceof PosthornError || isAborted()) throw cause;
      const code = abort.signal.aborted ? 'timeout' : cause instanceof SyntaxError ? 'protocol' : 'network';
      throw new PosthornError(code, `${call.path} failed`, { cause });
    } finally {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener('abort', stop);
    }
  }

  /**
   * An answer with a status of 2xx, its body unread.
   * @throws PosthornError for another status; whatever `fetch` throws
   */
  async open({ method, path, token, body, json, headers, signal }: Call): Promise<Response> {
    const text = json ?? JSON.stringify(body);
    const response = await this.#fetch(this.#base + path.replace(/^\/?/, '/'), {
      method,
      signal: signal ?? null,
      credentials: 'omit',
      headers: {
        Authorization: `Bearer ${token}`,
        'Posthorn-Version': '1',
        ...(text && { 'Content-Type': 'application/json' }),
        ...headers,
      },
      body: text ?? null,
    });
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

interface Problem {
  readonly code?: PosthornErrorCode;
  readonly detail?: string;
  readonly errors?: readonly Finding[];
}

/** What an answer with a bad status says, or means where it does not come from Posthorn. */
async function problemOf(response: Response): Promise<PosthornError> {
  const { status } = response;
  const problem = (await response.json().catch(() => undefined)) as Problem | undefined;
  const byStatus =
    status === 401
      ? 'unauthorized'
      : status === 429
        ? 'rate_limited'
        : status >= 500
          ? 'unavailable'
          : 'protocol';
  const seconds = Number(response.headers.get('retry-after') ?? NaN);
  return new PosthornError(problem?.code ?? byStatus, problem?.detail ?? `The server answered ${status}`, {
    status,
    errors: problem?.errors,
    retryAfter: seconds >= 0 ? seconds * 1_000 : undefined,
  });
}
