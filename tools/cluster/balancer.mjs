/**
 * One address in front of the gateways: TCP, round robin among those that say that they are ready. What is under way at
 * a gateway stays there: who is sent elsewhere, and how politely, is the gateway's own doing.
 */
import { once } from 'node:events';
import { get } from 'node:http';
import { connect, createServer } from 'node:net';

/** How often each is asked whether it is ready, and how long it has for its answer, in milliseconds. */
const EACH = 100;
const PATIENCE = 1_000;

/** @typedef {{ port: number }} Backend */

export class Balancer {
  /** Connections that found the gateway they were sent to closed, and were sent to another. */
  redirected = 0;
  /** Connections for which there was no gateway. */
  refused = 0;
  #backends;
  /** @type {Set<Backend>} */
  #ready = new Set();
  #next = 0;
  #server;
  /** @type {Set<import('node:net').Socket>} */
  #open = new Set();
  /** @type {NodeJS.Timeout[]} */
  #timers = [];

  /** @param {readonly Backend[]} backends on loopback */
  constructor(backends) {
    this.#backends = backends;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
      this.#open.add(client);
      client.once('close', () => this.#open.delete(client));
      client.on('error', () => client.destroy());
      this.#lead(client, this.#backends.length);
    });
  }

  /**
   * Resolves once it listens, and knows which gateways are ready.
   * @param {number} port
   */
  async listen(port) {
    await Promise.all(this.#backends.map((backend) => this.#ask(backend)));
    this.#timers = this.#backends.map((backend) => setInterval(() => void this.#ask(backend), EACH));
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = /** @type {import('node:net').AddressInfo} */ (this.#server.address());
    this.port = address.port;
    this.url = `http://127.0.0.1:${address.port}`;
  }

  /** @param {Backend} backend */
  serves(backend) {
    return this.#ready.has(backend);
  }

  async close() {
    for (const timer of this.#timers) clearInterval(timer);
    for (const client of this.#open) client.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  /** @param {Backend} backend */
  async #ask(backend) {
    const ready = await isReady(backend);
    if (ready) this.#ready.add(backend);
    else this.#ready.delete(backend);
  }

  /**
   * @param {import('node:net').Socket} client
   * @param {number} tries
   */
  #lead(client, tries) {
    const among = this.#backends.filter((backend) => this.#ready.has(backend));
    const backend = among[this.#next++ % among.length];
    if (!backend || tries === 0) {
      this.refused += 1;
      client.resetAndDestroy();
      return;
    }
    const server = connect({ host: '127.0.0.1', port: backend.port, allowHalfOpen: true, noDelay: true });
    const closed = () => {
      this.redirected += 1;
      this.#ready.delete(backend);
      this.#lead(client, tries - 1);
    };
    server.once('error', closed);
    server.once('connect', () => {
      server.off('error', closed);
      // A pipe passes an end on, and leaves what breaks to others.
      server.on('error', () => client.resetAndDestroy());
      client.on('error', () => server.destroy());
      client.once('close', () => server.destroy());
      server.once('close', () => client.destroy());
      client.pipe(server).pipe(client);
    });
  }
}

/** @param {Backend} backend */
function isReady({ port }) {
  return new Promise((resolve) => {
    const request = get(
      `http://127.0.0.1:${port}/health/ready`,
      { agent: false, timeout: PATIENCE },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      },
    );
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(false));
  });
}
