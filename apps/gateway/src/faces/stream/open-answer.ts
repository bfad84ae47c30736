/** An answer that does not end by itself. */
import type { ServerResponse } from 'node:http';
import type { CLOSE } from '@posthorn/contracts';
import { awaitOn } from '../../http/awaited.js';
import type { Wheel } from '../../hub/wheel.js';

/** How long a client may take to read the end, in milliseconds. */
const LINGER = 5_000;

export class OpenAnswer {
  readonly stream: ServerResponse;
  readonly #wheel: Wheel;
  #gone: (() => void) | undefined;

  constructor(response: ServerResponse, wheel: Wheel) {
    this.stream = response;
    this.#wheel = wheel;
  }

  /** Says that it is good, before there is anything to say. */
  begin(headers: Readonly<Record<string, string>>): void {
    this.stream.writeHead(200, headers);
    this.stream.flushHeaders();
  }

  /** Watches the client from now on. An answer that waits behind another one of its connection is not told itself. */
  watch(gone: () => void): void {
    this.#gone = gone;
    const answered = awaitOn(this.stream.req.socket, () => this.#end());
    this.stream.once('close', () => {
      answered();
      this.#end();
    });
  }

  /** Ends it once what was written is sent, but for a client that does not read. */
  close(reason: keyof typeof CLOSE): void {
    const { stream } = this;
    if (reason === 'slowConsumer') {
      this.terminate();
      return;
    }
    stream.end(() => stream.socket?.destroySoon());
    this.#wheel.at(Date.now() + LINGER, () => this.terminate());
  }

  /** Ends it without waiting for the client. */
  terminate(): void {
    this.stream.destroy();
  }

  #end(): void {
    this.#gone?.();
    this.#gone = undefined;
  }
}
