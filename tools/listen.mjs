/**
 * Listens to topics on a socket and prints what arrives, one frame per line.
 *
 *   node tools/listen.mjs [--url http://127.0.0.1:8080] --token <JWT> [--since <position>] <topic>…
 */
import { parseArgs } from 'node:util';
import { WebSocket } from 'ws';

const usage =
  'node tools/listen.mjs [--url http://127.0.0.1:8080] --token <JWT> [--since <position>] <topic>…';

const { values, positionals: topics } = readCommand();
if (!values.token || topics.length === 0 || !URL.canParse(values.url)) fail(usage);

const response = await fetch(new URL('/v1/sign', values.url), {
  headers: { authorization: `Bearer ${values.token}` },
}).catch((error) => fail(`${values.url} does not answer: ${error.cause?.message ?? error.message}`));
const signed = /** @type {{ url: string, code?: string, detail?: string }} */ (await response.json());
if (!response.ok)
  fail(`${values.url} refuses the token: ${signed.code ?? response.status} ${signed.detail ?? ''}`);

const socket = new WebSocket(signed.url, 'posthorn.v1');
socket.on('open', () => {
  for (const topic of topics) {
    const since = values.since && { since: values.since };
    // Errors do not say their topic, but return the ref.
    socket.send(JSON.stringify({ action: 'subscribe', topic, ref: topic, ...since }));
  }
});
socket.on('message', (data) => print(JSON.parse(String(data))));
socket.on('close', (code, reason) => fail(`closed by the server: ${code} ${reason}`));
socket.on('error', (error) => fail(error.message));

function readCommand() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        url: { type: 'string', default: 'http://127.0.0.1:8080' },
        token: { type: 'string' },
        since: { type: 'string' },
      },
    });
  } catch {
    return fail(usage);
  }
}

/** @param {{ action: string, topic?: string, ref?: string, message?: object, [field: string]: unknown }} frame */
function print({ action, ref = '', topic = ref, message, ...rest }) {
  const time = new Date().toTimeString().slice(0, 8);
  console.log(`${time}  ${action.padEnd(11)} ${topic}  ${JSON.stringify(message ?? rest)}`);
}

/**
 * @param {string} message
 * @returns {never}
 */
function fail(message) {
  console.error(message);
  process.exit(1);
}
