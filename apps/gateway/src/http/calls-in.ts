/**
 * What the log and the traces tell of each HTTP request: never the raw URL, where keys and tokens stand, and never who
 * called, only of which audience.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type Principal, traceIdOf } from '@posthorn/contracts';
import type { Service, Serving } from '@posthorn/service';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { GatewayCore } from '../core.js';

/** Asked for every few seconds: nothing to tell of. */
const PROBES: ReadonlySet<string | undefined> = new Set(['/health/live', '/health/ready', '/metrics']);
/** Long polls, of which each event that is heard answers one: they are told of when debugging. */
const POLLS = '/:database/bus';

const REQUEST_ID = /^[\w.:+/=@-]{1,128}$/;

/** A request while it is being served. */
export interface CallIn extends Serving {
  /** Milliseconds since 1970. */
  readonly began: number;
  /** Whose call it is, once that is known. */
  audience?: string;
}

type Known = FastifyRequest & { callIn?: CallIn };

/** The caller's `X-Request-Id` where it is one to write into a log, else a new one. */
export function requestIdOf({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

/** Answers every request with its id, and tells the log of it once it is over. */
export function followCalls(
  fastify: FastifyInstance,
  { logger, tracing }: Pick<Service, 'logger' | 'tracing'>,
): void {
  fastify.addHook('onRequest', (request: Known, reply, done) => {
    const { raw } = reply;
    const callIn: CallIn = { began: Date.now() };
    const began = performance.now();
    request.callIn = callIn;
    // Streams write their heads by themselves.
    raw.setHeader('x-request-id', request.id);
    const { socket } = request.raw;
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      socket.off('close', over);
      const { statusCode: status } = raw;
      callIn.span?.set({ 'http.response.status_code': status });
      callIn.span?.end(status >= 500 ? String(status) : undefined);
      const route = request.routeOptions.url;
      if (PROBES.has(route)) return;
      const level = status >= 500 ? 'warn' : route === POLLS && status < 400 ? 'debug' : 'info';
      if (!logger.isLevelEnabled(level)) return;
      const { span, audience } = callIn;
      logger[level](
        {
          request: request.id,
          method: request.method,
          // A path that is no call's may hold anything.
          ...(route === undefined ? {} : { route }),
          status,
          ms: Math.round((performance.now() - began) * 10) / 10,
          ...(audience === undefined ? {} : { audience }),
          ...(span && { trace: traceIdOf(span.traceparent) }),
          ...(raw.writableFinished ? {} : { aborted: true }),
        },
        'request',
      );
    };
    raw.once('close', over);
    // An answer that waits behind another one of its connection is not told that this has ended.
    socket.once('close', over);
    if (tracing) tracing.serve(callIn, done);
    else done();
  });
}

/** Says whose call a request is. Where it is traced, what it causes from now on belongs to its span. */
export function identifyCall(
  { service: { tracing } }: Pick<GatewayCore, 'service'>,
  request: FastifyRequest,
  { audience }: Pick<Principal, 'audience'>,
  trusted: boolean,
): void {
  const { callIn } = request as Known;
  if (!callIn) return;
  callIn.audience = audience;
  if (!tracing || callIn.span) return;
  const { method, headers, routeOptions } = request;
  callIn.span = tracing.arrive(`${method} ${routeOptions.url}`, {
    kind: 'server',
    startTime: callIn.began,
    traceparent: headers.traceparent as string | undefined,
    trusted,
    attributes: {
      'http.request.method': method,
      'http.route': routeOptions.url,
      'posthorn.audience': audience,
      'posthorn.request': request.id,
    },
  });
}
