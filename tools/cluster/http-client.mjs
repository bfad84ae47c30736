import { Agent, request } from 'node:http';

/**
 * How long a connection is kept idle for the next request, in milliseconds: shorter than a gateway that goes waits for
 * it (DRAIN_DELAY), so that no request meets a connection that is being closed.
 */
const IDLE = 1_000;

/** @typedef {{ status: number, after: string | undefined, text: string }} Answer after: what `Retry-After` says */

/** Calls over connections that are kept and used again, as a proxy or a service would. Nothing is repeated. */
export class HttpClient {
  #agent = new Agent({ keepAlive: true, timeout: IDLE });

  /**
   * @param {string} url
   * @param {{ method: string, headers: Record<string, string>, body?: object, signal?: AbortSignal }} options
   * @returns {Promise<Answer>}
   */
  send(url, { method, headers, body, signal }) {
    const text = body && JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const call = request(url, {
        agent: this.#agent,
        method,
        signal,
        headers: {
          ...headers,
          ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        },
      });
      call.once('error', reject);
      call.once('response', (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (chunk) => (answer += chunk));
        response.once('error', reject);
        response.once('end', () =>
          resolve({ status: response.statusCode ?? 0, after: response.headers['retry-after'], text: answer }),
        );
      });
      call.end(text);
    });
  }

  close() {
    this.#agent.destroy();
  }
}
