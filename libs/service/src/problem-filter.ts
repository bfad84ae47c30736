import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import { asProblem, type ProblemCode, ProblemError, toProblemDocument } from '@posthorn/contracts';
import type { Logger } from './logger.js';

/** The part of a Fastify reply that the filter uses; this library does not load Fastify. */
interface Reply {
  readonly sent: boolean;
  readonly raw: { destroy(): void };
  code(status: number): Reply;
  header(name: string, value: string): Reply;
  send(body: string): unknown;
}

/** The part of a Fastify request that is logged when something unexpected happens. */
interface Request {
  /** The id of the call, as the line `request` has it. */
  readonly id: string;
  readonly method: string;
  readonly url: string;
  readonly routeOptions?: { readonly url?: string | undefined };
}

/** A problem as the body of an answer. */
export interface ShownProblem {
  readonly contentType: string;
  readonly body: object;
}

/** Errors of a framework that only carry a status, as errors of the catalogue. */
const BY_STATUS: Readonly<Record<number, readonly [ProblemCode, string]>> = {
  401: ['unauthorized', 'A valid token is required'],
  403: ['forbidden', 'The principal may not do this'],
  404: ['route_not_found', 'There is no such call'],
  413: ['payload_too_large', 'The body is larger than what is accepted'],
  415: ['request_invalid', 'The content type of the body is not supported'],
  429: ['rate_limited', 'Too many requests'],
  501: ['not_implemented', 'This is not switched on'],
  503: ['unavailable', 'A service that this call needs is away'],
};

/**
 * Anything thrown while an HTTP request is handled, as an error of the catalogue. Errors of Nest and Fastify
 * (malformed JSON, a body too large, an unknown route) are recognised by their status; their own texts are
 * kept only where the caller's input is at fault.
 */
export function toProblem(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  const status = statusOf(error);
  if (status === undefined) return asProblem(error);
  const known = BY_STATUS[status];
  if (known) return new ProblemError(known[0], known[1], { cause: error });
  if (status >= 400 && status < 500) {
    return new ProblemError('request_invalid', (error as Error).message, { cause: error });
  }
  return asProblem(error);
}

function statusOf(error: unknown): number | undefined {
  if (error instanceof HttpException) return error.getStatus();
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  return typeof status === 'number' ? status : undefined;
}

/**
 * The one place where errors become HTTP answers: RFC 9457 `application/problem+json`, for Fastify. What is
 * unexpected is logged with its cause and answered as `internal`, without a word about its inside.
 */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const request = http.getRequest<Request>();
    const problem = toProblem(error);
    if (problem.code === 'internal') {
      const { id, method, url, routeOptions } = request;
      // The query, and the path of some calls, may carry a key.
      const path = routeOptions?.url ?? url.split('?', 1)[0];
      this.logger.error({ err: problem.cause ?? problem, request: id, method, path }, 'request failed');
    }
    writeProblem(http.getResponse<Reply>(), problem, this.show(problem, request));
  }

  /** What the caller of a request gets to see. For faces whose clients expect something else. */
  protected show(problem: ProblemError, _request: unknown): ShownProblem {
    return problemDocument(problem);
  }
}

/** Answers a Fastify request with a problem. An answer that has begun can only be cut off. */
export function writeProblem(reply: Reply, problem: ProblemError, shown = problemDocument(problem)): void {
  if (reply.sent) {
    reply.raw.destroy();
    return;
  }
  reply.code(problem.status).header('content-type', shown.contentType);
  if (problem.retryAfter !== undefined) reply.header('retry-after', String(Math.ceil(problem.retryAfter)));
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  reply.send(JSON.stringify(shown.body));
}

function problemDocument(problem: ProblemError): ShownProblem {
  return { contentType: 'application/problem+json; charset=utf-8', body: toProblemDocument(problem) };
}
