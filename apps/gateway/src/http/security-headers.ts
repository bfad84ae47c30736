/** Headers that tell browsers what they must not do with an answer, whoever writes it (docs/security.md). */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { GatewayConfig } from '../config.js';

/** A year, of this host alone: names below it may be others'. */
const STRICT_TRANSPORT = 'max-age=31536000';

/** Answers are data, and no page. A face with a page says what that one may do. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'content-security-policy':
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  // Keys stand in URLs.
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  // Pages of allowed origins ask by CORS, to which this does not apply.
  'cross-origin-resource-policy': 'same-origin',
  // Tokens, keys, personal data. Who answers with anything else says so.
  'cache-control': 'no-store',
};

/** What all answers carry. HSTS where browsers come over TLS, which ends in front of the gateway. */
export function securityHeaders({
  publicWsUrl,
}: Pick<GatewayConfig, 'publicWsUrl'>): Readonly<Record<string, string>> {
  if (!publicWsUrl?.startsWith('wss:')) return SECURITY_HEADERS;
  return { ...SECURITY_HEADERS, 'strict-transport-security': STRICT_TRANSPORT };
}

/** Sets them before anything else sees the request, so that refusals by the framework have them too. */
export function secureAnswers(server: Server, headers: Readonly<Record<string, string>>): void {
  const entries = Object.entries(headers);
  server.prependListener('request', (_: IncomingMessage, response: ServerResponse) => {
    for (const [name, value] of entries) response.setHeader(name, value);
  });
}
