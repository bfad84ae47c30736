/** A person's network, which the page can cut: what the SDK connects and calls with. */

export class Line {
  /** @type {Set<LineSocket>} */
  sockets = new Set();
  #lost = new AbortController();

  constructor() {
    const line = this;
    /** For the SDK: sockets on this line. */
    this.WebSocket = class extends LineSocket {
      /**
       * @param {string} url
       * @param {string[]} protocols
       */
      constructor(url, protocols) {
        super(line, url, protocols);
      }
    };
    /**
     * For the SDK: calls on this line.
     * @type {typeof globalThis.fetch}
     */
    this.fetch = async (input, init) => {
      const lost = this.#lost.signal;
      try {
        return await fetch(input, {
          ...init,
          signal: init?.signal ? AbortSignal.any([init.signal, lost]) : lost,
        });
      } catch (error) {
        throw lost.aborted ? new TypeError('The network is cut') : error;
      }
    };
  }

  get isCut() {
    return this.#lost.signal.aborted;
  }

  /** Loses every connection, and fails new ones, as a network does that is gone. */
  cut() {
    this.#lost.abort();
    for (const socket of this.sockets) socket.lose();
  }

  /** Lets connections pass, and says so as a browser does: the SDK waits no longer. */
  restore() {
    if (!this.isCut) return;
    this.#lost = new AbortController();
    dispatchEvent(new Event('online'));
  }
}

/** A WebSocket that is lost with its line: without a word to the server, nor from it. */
class LineSocket {
  /** @type {((event: Event) => void) | null} */
  onopen = null;
  /** @type {((event: MessageEvent) => void) | null} */
  onmessage = null;
  /** @type {((event: Event) => void) | null} */
  onerror = null;
  /** @type {((event: CloseEvent) => void) | null} */
  onclose = null;
  #line;
  /** @type {WebSocket | undefined} */
  #socket;

  /**
   * @param {Line} line
   * @param {string} url
   * @param {string[]} protocols
   */
  constructor(line, url, protocols) {
    this.#line = line;
    line.sockets.add(this);
    if (line.isCut) {
      setTimeout(() => this.lose());
      return;
    }
    const socket = new WebSocket(url, protocols);
    socket.onopen = (event) => this.onopen?.(event);
    socket.onmessage = (event) => this.onmessage?.(event);
    socket.onerror = (event) => this.onerror?.(event);
    socket.onclose = (event) => {
      line.sockets.delete(this);
      this.onclose?.(event);
    };
    this.#socket = socket;
  }

  /** @param {string} text */
  send(text) {
    this.#socket?.send(text);
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  close(code, reason) {
    this.#socket?.close(code, reason);
  }

  lose() {
    if (!this.#line.sockets.delete(this)) return;
    const socket = this.#socket;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
      socket.close();
    }
    this.onerror?.(new Event('error'));
    this.onclose?.(new CloseEvent('close', { code: 1006 }));
  }
}
