/** The HTTP server under Nest: its limits, and problem documents for what Nest never gets to see. */
import type { Socket } from 'node:net';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { ProblemError } from '@posthorn/contracts';
import { writeProblem } from '@posthorn/service';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { GatewayCore } from '../core.js';
import { BODY_LIMIT, parseBodies } from './body.js';
import { followCalls, requestIdOf } from './calls-in.js';
import { httpProblem, refuse } from './refusal.js';

/** The longest id in a path, percent-encoded. */
const PARAM_LIMIT = 3 * 255;
/** How long headers, and a whole request, may take to come in, in milliseconds. */
const HEADERS_TIMEOUT = 15_000;
const REQUEST_TIMEOUT = 60_000;
/** After which a connection is ended on which no byte moves, while it is no socket of ours, in milliseconds. */
const IDLE_TIMEOUT = 120_000;

export function createAdapter(core: GatewayCore): FastifyAdapter {
  const { config, metrics, service } = core;
  const adapter = new FastifyAdapter({
    bodyLimit: BODY_LIMIT,
    genReqId: requestIdOf,
    // One hop: of several addresses all but the last are what the caller said.
    trustProxy: config.trustProxy && ((_, hop) => hop === 0),
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    requestTimeout: REQUEST_TIMEOUT,
    connectionTimeout: IDLE_TIMEOUT,
    routerOptions: { maxParamLength: PARAM_LIMIT },
    // A key carries all of its token, which may have 16 KiB.
    http: { maxHeaderSize: 32 * 1_024, headersTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: 5_000 },
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
  followCalls(fastify, core);
  // Each call that waits listens to the end of its connection, and a client may send many in one go.
  fastify.server.on('connection', (socket: Socket) => socket.setMaxListeners(0));
  // A connection that is kept open would be cut when the process ends, perhaps with a request on its way.
  fastify.addHook('onRequest', (_, reply, done) => {
    if (service.shutdown.signal.aborted) reply.header('connection', 'close');
    done();
  });
  return adapter;
}
