/** Who hears events without an SDK: an event stream as a browser has it, and Tryton's polls. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** The pause of a browser that a stream did not tell another, in milliseconds. */
const RETRY = 1_000;

/**
 * Follows `GET /v1/stream`, and comes again with its last id as a browser does: after the pause that the stream asked for.
 * @param {object} options
 * @param {string} options.url
 * @param {string} options.token
 * @param {readonly string[]} options.topics
 * @param {(topic: string, message: any) => void} options.hear
 * @param {(what: string) => void} options.find told of answers that no browser would come again after
 */
export function followStream({ url, token, topics, hear, find }) {
  const query = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join('&');
  let last = '';
  let retry = RETRY;
  let stopped = false;
  /** @type {import('node:http').ClientRequest | undefined} */
  let call;
  /** @type {() => void} */
  let hasBegun;
  /** @type {Promise<void>} */
  const ready = new Promise((resolve) => {
    hasBegun = resolve;
  });

  const once = () =>
    new Promise((resolve) => {
      call = request(`${url}/v1/stream?${query}`, {
        agent: false,
        headers: {
          accept: 'text/event-stream',
          authorization: `Bearer ${token}`,
          ...(last && { 'last-event-id': last }),
        },
      });
      call.once('error', (error) => {
        if (!stopped) find(`an event stream met ${error.message}`);
      });
      call.once('close', resolve);
      call.once('response', (answer) => {
        if (answer.statusCode !== 200) find(`an event stream was answered ${answer.statusCode}`);
        let rest = '';
        let name = '';
        let id = last;
        /** @type {string[]} */
        let data = [];
        answer.setEncoding('utf8');
        answer.on('error', () => {});
        answer.on('data', (/** @type {string} */ text) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) {
            const [, field = '', value = ''] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
            if (line === '') {
              last = id;
              if (data.length > 0) hear(name, JSON.parse(data.join('\n')));
              name = '';
              data = [];
            } else if (field === 'event') name = value;
            else if (field === 'data') data.push(value);
            else if (field === 'id') id = value;
            else if (field === 'retry') {
              retry = Number(value);
              hasBegun();
            }
          }
        });
      });
      call.end();
    });
  const running = (async () => {
    while (!stopped) {
      await once();
      if (!stopped) await sleep(retry);
    }
  })();
  return {
    ready,
    async close() {
      stopped = true;
      call?.destroy();
      await running;
    },
  };
}

/**
 * Polls `POST /<audience>/bus` from the last message on.
 * @param {object} options
 * @param {string} options.audience
 * @param {readonly string[]} options.channels
 * @param {(path: string, body: object, signal: AbortSignal) => Promise<any>} options.ask a call that is repeated while it is `unavailable`
 * @param {(channel: string, message: any) => void} options.hear
 */
export function poll({ audience, channels, ask, hear }) {
  const closing = new AbortController();
  /** @type {string | null} */
  let last = null;
  const running = (async () => {
    while (!closing.signal.aborted) {
      const answer = await ask(`/${audience}/bus`, { channels, last_message: last }, closing.signal);
      if (!answer?.message) continue;
      last = answer.message.message_id;
      hear(answer.channel, answer.message);
    }
  })();
  return {
    async close() {
      closing.abort();
      await running;
    },
  };
}
