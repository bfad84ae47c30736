/** Refusals of what never becomes a call: bytes that are no HTTP, upgrades, paths that no router reads. */
import type { Duplex } from 'node:stream';
import { ProblemError, toProblemDocument } from '@posthorn/contracts';
import { SECURITY_HEADERS } from './security-headers.js';

/** Writes a problem document straight to a connection, and ends it whether or not the peer does. */
export function refuse(stream: Duplex, problem: ProblemError): void {
  if (!stream.writable) {
    stream.destroy();
    return;
  }
  const body = JSON.stringify(toProblemDocument(problem));
  const headers = {
    'Content-Type': 'application/problem+json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
    ...SECURITY_HEADERS,
    ...(problem.status === 401 && { 'WWW-Authenticate': 'Bearer' }),
    ...(problem.retryAfter !== undefined && { 'Retry-After': Math.ceil(problem.retryAfter) }),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  stream.once('finish', () => stream.destroy());
  stream.end(`HTTP/1.1 ${problem.status} ${problem.code}\r\n${lines.join('')}\r\n${body}`);
}

/** What an error of Node's HTTP parser means to the peer; undefined where nobody is left to be told. */
export function httpProblem(error: NodeJS.ErrnoException): ProblemError | undefined {
  switch (error.code) {
    case 'ECONNRESET':
    case 'EPIPE':
      return undefined;
    case 'HPE_HEADER_OVERFLOW':
      return new ProblemError('payload_too_large', 'The headers are larger than what is accepted');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new ProblemError('request_invalid', 'The request did not come in time');
    default:
      return new ProblemError('request_invalid', 'The request is not HTTP');
  }
}
