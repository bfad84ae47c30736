/** The HTTP server under Nest: its limits, and problem documents for what Nest never gets to see. */
import type { Socket } from 'node:net';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { ProblemError } from '@posthorn/contracts';
import { type Service, type Shutdown, writeProblem } from '@posthorn/service';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { GatewayCore } from '../core.js';
import { BODY_LIMIT, parseBodies } from './body.js';
import { followCalls, requestIdOf } from './calls-in.js';
import { httpProblem, refuse } from './refusal.js';
import { secureAnswers, securityHeaders } from './security-headers.js';
import { limitWaiting } from './waiting.js';

/** The longest id in a path, percent-encoded. */
const PARAM_LIMIT = 3 * 255;
/** How often connections are looked at that take too long, in milliseconds, at most. */
const CHECKING = 5_000;
/** After which a connection is ended on which no byte moves, while it is no socket of ours, in milliseconds. */
const IDLE_TIMEOUT = 120_000;

/** The parts of the gateway that its server needs. */
export interface ServerParts extends Pick<GatewayCore, 'addresses' | 'config' | 'metrics'> {
  readonly service: Pick<Service, 'logger' | 'tracing'> & { readonly shutdown: Pick<Shutdown, 'signal'> };
}

export function createAdapter({ addresses, config, metrics, service }: ServerParts): FastifyAdapter {
  const adapter = new FastifyAdapter({
    bodyLimit: BODY_LIMIT,
    genReqId: requestIdOf,
    // One hop: of several addresses all but the last are what the caller said.
    trustProxy: config.trustProxy && ((_, hop) => hop === 0),
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    requestTimeout: config.requestTimeout,
    keepAliveTimeout: config.keepAliveTimeout,
    connectionTimeout: IDLE_TIMEOUT,
    routerOptions: { maxParamLength: PARAM_LIMIT },
    // A key carries all of its token, which may have 16 KiB.
    http: {
      maxHeaderSize: 32 * 1_024,
      headersTimeout: config.headersTimeout,
      connectionsCheckingInterval: Math.min(CHECKING, config.headersTimeout),
    },
    frameworkErrors: (_error: unknown, _request: FastifyRequest, reply: FastifyReply) => {
      metrics.errors.request_invalid.inc();
      writeProblem(reply, new ProblemError('request_invalid', 'The path is not valid'));
    },
    clientErrorHandler: (error, socket) => {
      const problem = httpProblem(error);
      if (!problem) return void socket.destroy();
      metrics.errors[problem.code].inc();
      refuse(socket, problem);
    },
  });
  const fastify = adapter.getInstance();
  parseBodies(fastify);
  secureAnswers(fastify.server, securityHeaders(config));
  // By default Node drops what comes behind 2,000 headers: the address that a proxy has added, for example.
  fastify.server.maxHeadersCount = 0;
  limitWaiting(fastify, () => metrics.errors.rate_limited.inc());
  followCalls(fastify, service);
  // Each call that waits listens to the end of its connection, and a client may send many in one go.
  fastify.server.on('connection', (socket: Socket) => socket.setMaxListeners(0));
  addresses.guard(fastify.server, fastify);
  // A connection that is kept open would be cut when the process ends, perhaps with a request on its way.
  fastify.addHook('onRequest', (_, reply, done) => {
    if (service.shutdown.signal.aborted) reply.header('connection', 'close');
    done();
  });
  return adapter;
}
