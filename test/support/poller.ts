/** A client of Tryton's bus: polls, each at the next of several gateways, and keeps the last message's id. */
import { type Answer, call } from './courier-client.js';

export interface PollerOptions {
  readonly urls: readonly string[];
  readonly database: string;
  readonly token: string;
  readonly channels: readonly string[];
  readonly last?: string | null;
}

export class Poller {
  readonly #options: PollerOptions;
  /** What it tells at the next poll. */
  last: string | null;
  #polls = 0;

  constructor(options: PollerOptions) {
    this.#options = options;
    this.last = options.last ?? null;
  }

  /** One poll. Where a message came, the next one asks for what follows it. */
  async poll(signal?: AbortSignal): Promise<Answer> {
    const { urls, database, token, channels } = this.#options;
    const base = urls[this.#polls++ % urls.length]!;
    const body = { last_message: this.last, channels };
    const path = `/${encodeURIComponent(database)}/bus`;
    const answer = await call(base, token, 'POST', path, body, {}, signal);
    if (answer.body.message) this.last = answer.body.message.message_id;
    return answer;
  }

  /** The message of one poll; null where it waited in vain. */
  // biome-ignore lint/suspicious/noExplicitAny: messages of every shape
  async next(): Promise<any> {
    const { status, body } = await this.poll();
    if (status !== 200) throw new Error(`the poll was answered ${status}: ${JSON.stringify(body)}`);
    return body.message;
  }
}
