/** Clients that wait for a message of their own: with a long poll each, or on a socket each. */
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:http';
import { WebSocket } from 'ws';

/**
 * @typedef {object} Waiters
 * @property {() => Promise<void>} open resolves once all of them wait
 * @property {(index: number) => Promise<void>} answered resolves when the client has its next message, and waits again
 * @property {() => void} close
 */

/** Clients whose requests are under way at once while they begin. */
const AT_ONCE = 50;

/**
 * @param {number} count
 * @param {(index: number) => Promise<void>} begin
 */
async function each(count, begin) {
  let next = 0;
  const lane = async () => {
    while (next < count) await begin(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}

/**
 * @param {import('./contenders/posthorn.mjs').Posthorn} posthorn
 * @param {number} count
 * @returns {Waiters}
 */
export function pollers(posthorn, count) {
  const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
  /** @type {(string | null)[]} */
  const last = Array.from({ length: count }, () => null);
  /** @type {((error?: Error) => void)[]} */
  const waiting = [];
  const tokens = Array.from({ length: count }, (_, index) => posthorn.token(subject(index)));
  const channels = Array.from({ length: count }, () => [`client:${randomUUID()}`]);

  /** @param {number} index */
  const poll = async (index) => {
    const body = JSON.stringify({ last_message: last[index], channels: channels[index] });
    const headers = {
      authorization: `Bearer ${await tokens[index]}`,
      'content-type': 'application/json',
      'content-length': body.length,
    };
    const options = {
      agent,
      method: 'POST',
      port: posthorn.gateways[0]?.port,
      path: `/${posthorn.audience}/bus`,
      headers,
    };
    await new Promise((sent) => {
      const call = request(options, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part) => {
          text += part;
        });
        response.on('end', () => {
          const { message } = JSON.parse(text);
          if (response.statusCode !== 200 || !message)
            return waiting[index]?.(new Error(`${response.statusCode}: ${text}`));
          last[index] = message.message_id;
          waiting[index]?.();
          void poll(index);
        });
      });
      call.on('error', () => {});
      call.end(body, () => sent(undefined));
    });
  };
  return {
    open: async () => {
      await each(count, poll);
      await posthorn.reaches('posthorn_polls', count);
    },
    answered: (index) =>
      new Promise((resolve, reject) => {
        waiting[index] = (error) => (error ? reject(error) : resolve());
      }),
    close: () => agent.destroy(),
  };
}

/**
 * @param {import('./contenders/posthorn.mjs').Posthorn} posthorn
 * @param {number} count
 * @returns {Waiters}
 */
export function sockets(posthorn, count) {
  /** @type {WebSocket[]} */
  const open = [];
  /** @type {(() => void)[]} */
  const waiting = [];
  return {
    open: () =>
      each(count, async (index) => {
        const { port, path } = await posthorn.target(0, subject(index));
        const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
        open[index] = socket;
        const topics = [`user:${subject(index)}`, `client:${randomUUID()}`];
        let subscribed = 0;
        await new Promise((resolve, reject) => {
          socket.on('error', reject);
          socket.on('message', (data) => {
            const frame = JSON.parse(String(data));
            if (frame.action === 'welcome')
              for (const topic of topics) socket.send(JSON.stringify({ action: 'subscribe', topic }));
            if (frame.action === 'subscribed' && ++subscribed === topics.length) resolve(undefined);
            if (frame.action === 'message') waiting[index]?.();
          });
        });
      }),
    answered: (index) =>
      new Promise((resolve) => {
        waiting[index] = () => resolve();
      }),
    close: () => {
      for (const socket of open) socket.terminate();
    },
  };
}

/** @param {number} index */
export function subject(index) {
  return `waiter-${index}`;
}

/** A client that polls one after another, each time at the next gateway. */
export class Poller {
  #agent = new Agent({ keepAlive: true });
  #posthorn;
  #token;
  #channels;
  /** @type {string | null} */
  #last = null;
  #polls = 0;

  /**
   * @param {import('./contenders/posthorn.mjs').Posthorn} posthorn
   * @param {string} token
   * @param {readonly string[]} channels
   */
  constructor(posthorn, token, channels) {
    this.#posthorn = posthorn;
    this.#token = token;
    this.#channels = channels;
  }

  /** @returns {Promise<any>} the answer */
  async poll() {
    const { gateways, audience } = this.#posthorn;
    const { port } = gateways[this.#polls++ % gateways.length] ?? {};
    const body = JSON.stringify({ last_message: this.#last, channels: this.#channels });
    const headers = {
      authorization: `Bearer ${this.#token}`,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    };
    const answer = await new Promise((resolve, reject) => {
      const options = { agent: this.#agent, method: 'POST', port, path: `/${audience}/bus`, headers };
      const call = request(options, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part) => {
          text += part;
        });
        response.on('end', () => resolve(JSON.parse(text)));
      });
      call.on('error', reject);
      call.end(body);
    });
    if (answer.message) this.#last = answer.message.message_id;
    return answer;
  }

  close() {
    this.#agent.destroy();
  }
}
