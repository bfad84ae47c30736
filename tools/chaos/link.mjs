/** What lies between a client and the gateways: TCP that can be cut, held, lost, slowed down, and closed to WebSockets. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Bytes on their way in one direction, after which the sender has to wait. */
const WINDOW = 64 * 1024;

export class Link {
  /** @type {Set<Pair>} */
  #pairs = new Set();
  #server;
  /** @type {() => number} */
  #target;
  /** New connections are reset. */
  refuses = false;
  /** No byte passes, nothing is closed. */
  #stalled = false;
  /** As a proxy that knows no WebSockets. */
  blocksWebSockets = false;
  /** Milliseconds, and bytes in a second, of each direction. */
  latency = 0;
  rate = Infinity;

  /** @param {() => number} target the port that a new connection leads to */
  constructor(target) {
    this.#target = target;
    this.#server = createServer({ allowHalfOpen: true }, (client) => {
      if (this.refuses) return void client.resetAndDestroy();
      const pair = new Pair(
        this,
        client,
        connect({ host: '127.0.0.1', port: this.#target(), allowHalfOpen: true }),
      );
      this.#pairs.add(pair);
      pair.onClose(() => this.#pairs.delete(pair));
      if (this.#stalled) pair.hold();
    });
  }

  url = '';

  async open() {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const { port } = /** @type {import('node:net').AddressInfo} */ (this.#server.address());
    this.url = `http://127.0.0.1:${port}`;
    return this;
  }

  /** How many connections the client has open. */
  get connections() {
    return [...this.#pairs].filter((pair) => pair.isOpen).length;
  }

  reset() {
    for (const pair of this.#pairs) pair.reset();
  }

  /** Holds what is on its way, until `release`. */
  stall() {
    this.#stalled = true;
    for (const pair of this.#pairs) pair.hold();
  }

  release() {
    this.#stalled = false;
    for (const pair of this.#pairs) pair.release();
  }

  /** Connections that are open lose every byte from now on, and neither side is told. */
  lose() {
    for (const pair of this.#pairs) pair.lost = true;
  }

  /** A network without faults again; what was lost is reset. */
  heal() {
    this.refuses = false;
    this.blocksWebSockets = false;
    this.latency = 0;
    this.rate = Infinity;
    this.release();
    for (const pair of this.#pairs) if (pair.lost) pair.reset();
  }

  async close() {
    this.refuses = true;
    this.reset();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

class Pair {
  lost = false;
  #held = false;
  #client;
  #server;

  /**
   * @param {Link} link
   * @param {import('node:net').Socket} client
   * @param {import('node:net').Socket} server
   */
  constructor(link, client, server) {
    this.#client = client;
    this.#server = server;
    this.#pass(link, client, server, true);
    this.#pass(link, server, client, false);
  }

  get isOpen() {
    return !this.#client.destroyed;
  }

  /** Calls back when both sides are closed. @param {() => void} done */
  onClose(done) {
    const sides = [this.#client, this.#server];
    for (const side of sides) side.once('close', () => sides.every(({ closed }) => closed) && done());
  }

  reset() {
    // Node cannot reset a socket that is shutting down.
    if (this.#client.writableEnded) this.#client.destroy();
    else this.#client.resetAndDestroy();
    this.#server.destroy();
  }

  hold() {
    this.#held = true;
    this.#client.pause();
    this.#server.pause();
  }

  release() {
    this.#held = false;
    this.#client.resume();
    this.#server.resume();
  }

  /** @param {import('node:net').Socket} from */
  #resume(from) {
    if (!this.#held) from.resume();
  }

  /**
   * @param {Link} link
   * @param {import('node:net').Socket} from
   * @param {import('node:net').Socket} to
   * @param {boolean} upward
   */
  #pass(link, from, to, upward) {
    let first = upward;
    let waiting = 0;
    /** When the last byte that was taken has passed. */
    let free = 0;
    /** What is held back, in its order. @type {{ due: number, action: () => void }[]} */
    const queue = [];
    const drain = () => {
      for (let [next] = queue; next; [next] = queue) {
        const wait = next.due - performance.now();
        if (wait > 1) return void setTimeout(drain, wait);
        queue.shift();
        next.action();
      }
    };
    /** @param {number} bytes @param {() => void} action */
    const later = (bytes, action) => {
      free = Math.max(free, performance.now() + link.latency) + (bytes / link.rate) * 1_000;
      // Nothing overtakes what is held back, whatever the link is like now.
      if (queue.push({ due: free, action }) === 1) drain();
    };
    from.setNoDelay(true);
    from.on('data', (chunk) => {
      if (this.lost) return;
      if (first && link.blocksWebSockets && /^upgrade: websocket/im.test(chunk.toString('latin1'))) {
        from.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
        to.destroy();
        return;
      }
      first = false;
      waiting += chunk.length;
      if (waiting > WINDOW) from.pause();
      later(chunk.length, () => {
        waiting -= chunk.length;
        if (this.lost || to.destroyed) return;
        if (!to.write(chunk)) {
          from.pause();
          to.once('drain', () => this.#resume(from));
        } else if (waiting <= WINDOW) {
          this.#resume(from);
        }
      });
    });
    from.on('end', () => later(0, () => this.lost || to.destroyed || to.end()));
    from.on('error', () => to.destroy());
    from.on('close', () => later(0, () => this.lost || to.destroy()));
  }
}
