/** Holds connections and requests against the limits of their addresses, before anything is done for them. */
import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ProblemError } from '@posthorn/contracts';
import type { Logger } from '@posthorn/service';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { GatewayConfig } from '../config.js';
import type { GatewayMetrics } from '../metrics.js';
import { Addresses } from './addresses.js';
import { addressOf } from './network.js';

/**
 * Connections of an address beyond its limit that are still told so once they ask for something, which they have to do
 * as soon as any other; further ones are cut.
 */
const TOLD = 64;
/** What opens an event stream, as it is routed. */
const STREAMS: ReadonlySet<string | undefined> = new Set(['/v1/stream', '/status/*']);

export interface AddressGateParts {
  readonly config: GatewayConfig;
  readonly metrics: Pick<GatewayMetrics, 'errors' | 'addressRefusals'>;
  readonly logger: Logger;
}

export class AddressGate {
  readonly #config: GatewayConfig;
  readonly #metrics: AddressGateParts['metrics'];
  readonly #logger: Logger;
  readonly #addresses: Addresses;
  /** Connections that have come, some of which come again when an offer to upgrade is passed over. */
  readonly #seen = new WeakSet<Duplex>();
  /** Connections of which every request is refused. */
  readonly #refused = new WeakMap<Duplex, ProblemError>();
  #proxyTold = false;

  constructor({ config, metrics, logger }: AddressGateParts) {
    this.#config = config;
    this.#metrics = metrics;
    this.#logger = logger;
    this.#addresses = new Addresses(config);
  }

  /** Watches the connections of a server, and the requests that its framework is given. */
  guard(server: Server, fastify: FastifyInstance): void {
    if (this.#config.trustProxy) {
      fastify.addHook('onRequest', (request, reply, done) => done(this.#refuseRequest(request, reply)));
      return;
    }
    server.on('connection', (socket: Socket) => this.#connected(socket));
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request;
      if (raw.headers['x-forwarded-for'] !== undefined) this.#tellOfProxy();
      const problem = this.#refused.get(raw.socket);
      if (problem) reply.header('connection', 'close');
      done(problem);
    });
  }

  /**
   * Lets an upgrade in, whose connection has a place from now on.
   * @throws ProblemError `rate_limited`
   */
  admitUpgrade(request: IncomingMessage, stream: Duplex): void {
    const problem = this.#config.trustProxy
      ? this.#enter(addressOf(request, true), true, (leave) => stream.once('close', leave))
      : this.#refused.get(stream);
    if (problem) throw problem;
  }

  #connected(socket: Socket): void {
    if (this.#seen.has(socket)) return;
    this.#seen.add(socket);
    const address = socket.remoteAddress ?? '';
    const problem = this.#enter(address, true, (leave, open) => {
      socket.once('close', leave);
      if (open > this.#config.addressLimit + TOLD) socket.destroy();
    });
    if (!problem) return;
    if (socket.destroyed) this.#metrics.errors[problem.code].inc();
    this.#refused.set(socket, problem);
  }

  #refuseRequest({ raw, routeOptions }: FastifyRequest, reply: FastifyReply): ProblemError | undefined {
    return this.#enter(addressOf(raw, true), STREAMS.has(routeOptions.url), (leave) => {
      const { socket } = raw;
      socket.once('close', leave);
      // An answer that waits behind another one of its connection is not told that this has ended.
      reply.raw.once('close', () => {
        socket.off('close', leave);
        leave();
      });
    });
  }

  /**
   * @param opens whether it counts as an opening
   * @param placed is given what gives the place back, which may be called again, and how many the address has
   */
  #enter(
    address: string,
    opens: boolean,
    placed: (leave: () => void, open: number) => void,
  ): ProblemError | undefined {
    const place = this.#addresses.enter(address);
    if (!place) return undefined;
    placed(place.leave, place.open);
    const tooMany = this.#addresses.tooMany(place.open);
    if (tooMany) {
      this.#metrics.addressRefusals.open.inc();
      return tooMany;
    }
    const tooFast = opens ? this.#addresses.tooFast(address, performance.now()) : undefined;
    if (tooFast) this.#metrics.addressRefusals.rate.inc();
    return tooFast;
  }

  #tellOfProxy(): void {
    if (this.#proxyTold) return;
    this.#proxyTold = true;
    this.#logger.warn(
      'A request came with X-Forwarded-For, and TRUST_PROXY is not set: if that is from a proxy of yours, set it, ' +
        "or the limits of addresses count for the proxy's and not for the clients'",
    );
  }
}
