import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** A link between a client and a server on the loopback interface that a test can cut, stall or slow down. */
export class TcpProxy implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #target: () => { host: string; port: number };
  readonly #pairs = new Set<Pair>();
  #cut = false;
  #stalled = false;
  #delayMs = 0;

  constructor(server: Server, target: () => { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#link(client));
  }

  /** How many connections pass now. */
  get connections(): number {
    return this.#pairs.size;
  }

  /** Resets every connection and refuses new ones until `restore()`. */
  cut(): void {
    this.#cut = true;
    this.reset();
  }

  /** Resets every connection; new ones pass. */
  reset(): void {
    for (const pair of this.#pairs) pair.reset();
  }

  /** Keeps connections open and lets no byte through, in either direction, until `restore()`: a network that is gone. */
  stall(): void {
    this.#stalled = true;
    for (const pair of this.#pairs) pair.pause();
  }

  /** Holds every byte back for this long, in both directions, in order. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Ends a cut, a stall and a delay. What a stall held back is passed on. */
  restore(): void {
    this.#cut = false;
    this.#stalled = false;
    this.#delayMs = 0;
    for (const pair of this.#pairs) pair.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #link(client: Socket): void {
    if (this.#cut) {
      client.resetAndDestroy();
      return;
    }
    const pair = new Pair(client, connect(this.#target()), () => this.#delayMs);
    this.#pairs.add(pair);
    pair.onClose(() => this.#pairs.delete(pair));
    if (this.#stalled) pair.pause();
  }
}

class Pair {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #delayMs: () => number;

  constructor(client: Socket, server: Socket, delayMs: () => number) {
    this.#client = client;
    this.#server = server;
    this.#delayMs = delayMs;
    this.#pass(client, server);
    this.#pass(server, client);
  }

  onClose(done: () => void): void {
    this.#client.once('close', done);
  }

  reset(): void {
    // Node cannot reset a socket that is shutting down: it would never be closed, and the process never end.
    if (this.#client.writableEnded) this.#client.destroy();
    else this.#client.resetAndDestroy();
    this.#server.destroy();
  }

  pause(): void {
    this.#client.pause();
    this.#server.pause();
  }

  resume(): void {
    this.#client.resume();
    this.#server.resume();
  }

  #pass(from: Socket, to: Socket): void {
    const after = (action: () => void): void => {
      const ms = this.#delayMs();
      if (ms > 0) setTimeout(action, ms);
      else action();
    };
    from.setNoDelay(true);
    from.on('data', (chunk) =>
      after(() => {
        if (!to.destroyed && !to.write(chunk)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      }),
    );
    from.on('end', () => after(() => to.end()));
    from.on('error', () => to.destroy());
    from.on('close', () => after(() => to.destroy()));
  }
}

/**
 * Opens a link on a free loopback port.
 * @param target where it leads: a port, or a function that is asked per connection (a server may come back elsewhere)
 */
export async function startTcpProxy(target: number | (() => number)): Promise<TcpProxy> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: false });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = typeof target === 'number' ? () => target : target;
  return new TcpProxy(server, () => ({ host: '127.0.0.1', port: port() }));
}
