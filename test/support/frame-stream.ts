/** A client of `POST /v1/stream` for tests, as a browser's page has one: `fetch`, whose body it reads as it comes. */
import { Changes } from '@posthorn/testing';
import type { Frame } from './courier-client.js';

export interface FrameStreamRequest {
  readonly subscriptions: readonly { topic: string; since?: string; ref?: string }[];
  readonly broadcasts?: string;
}

export class FrameStreamClient implements AsyncDisposable {
  readonly frames: Frame[] = [];
  readonly status: number;
  readonly headers: Headers;
  /** What a refusal says. */
  // biome-ignore lint/suspicious/noExplicitAny: problem documents
  body: any;
  ended = false;
  readonly #hangUp: AbortController;
  readonly #changes = new Changes(() => JSON.stringify(this.frames.slice(-5)));
  readonly #reading: Promise<void>;

  private constructor(response: Response, hangUp: AbortController) {
    this.status = response.status;
    this.headers = response.headers;
    this.#hangUp = hangUp;
    this.#reading = this.#read(response).finally(() => {
      this.ended = true;
      this.#changes.tell();
    });
  }

  /** Resolves once the gateway has welcomed or refused it. */
  static async open(
    base: string,
    token: string,
    body: FrameStreamRequest | unknown,
    headers: Record<string, string> = {},
  ): Promise<FrameStreamClient> {
    const hangUp = new AbortController();
    const response = await fetch(`${base}/v1/stream`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      signal: hangUp.signal,
    });
    const client = new FrameStreamClient(response, hangUp);
    if (client.status === 200) await client.find(({ action }) => action === 'welcome');
    else await client.#reading;
    return client;
  }

  /** The frames of an action. */
  of(action: string): Frame[] {
    return this.frames.filter((frame) => frame.action === action);
  }

  /** The first frame, from `from` on, that the predicate takes; waits for it. */
  async find(predicate: (frame: Frame) => boolean, from = 0, timeout = 20_000): Promise<Frame> {
    await this.until(() => this.frames.slice(from).some(predicate), timeout);
    return this.frames.slice(from).find(predicate)!;
  }

  async count(action: string, n: number): Promise<Frame[]> {
    await this.until(() => this.of(action).length >= n);
    return this.of(action);
  }

  /** Waits until something holds; what is asked again whenever something has come. */
  async until(holds: () => boolean, timeout = 20_000): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!holds()) {
      if (this.ended) throw new Error(`the stream has ended: ${JSON.stringify(this.frames.slice(-5))}`);
      await this.#changes.next(deadline);
    }
  }

  /** Waits until the gateway has ended the stream. */
  async end(timeout = 20_000): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!this.ended) await this.#changes.next(deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#hangUp.abort();
    await this.#reading;
  }

  async #read(response: Response): Promise<void> {
    if (response.status !== 200) {
      this.body = await response.json();
      return;
    }
    const text = new TextDecoder();
    let rest = '';
    try {
      for await (const chunk of response.body!) {
        const blocks = (rest + text.decode(chunk as Uint8Array, { stream: true })).split('\n\n');
        rest = blocks.pop()!;
        for (const block of blocks) {
          if (!/^data: [^\n]*$/.test(block)) throw new Error(`no frame: ${block}`);
          this.frames.push(JSON.parse(block.slice('data: '.length)));
        }
        this.#changes.tell();
      }
    } catch (error) {
      if (!this.#hangUp.signal.aborted && !isCut(error)) throw error;
    }
  }
}

/** What `fetch` says of a connection that ends in the middle of a body. */
function isCut(error: unknown): boolean {
  return error instanceof TypeError && error.message === 'terminated';
}
