/**
 * 02: a messages service on plain node:http, which publishes each message and its activity on both scopes.
 *
 * A browser hears the global events on its socket. A timeline, which could be another process, consumes the local
 * activities durably: one that it fails on comes again. Ends with 1 when anything is missing or too much.
 *
 *     npm start                                 # in one terminal
 *     set -a; . .posthorn/dev.env; set +a       # in another one
 *     node examples/02-messages-service.mjs
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import { SignJWT } from 'jose';
import { WebSocket } from 'ws';
import { connectPubSub, ProblemError } from '../dist/libs/bus/src/index.js';

const {
  POSTHORN_URL = 'http://localhost:8080',
  NATS_URL = 'nats://127.0.0.1:4222',
  JWT_SECRET,
  INSTANCE = 'main',
} = process.env;
if (!JWT_SECRET) throw new Error('JWT_SECRET is not set: source the dev.env that npm start wrote');

// One run must not meet the events of another one.
const audience = `messages ${Date.now().toString(36)}`;
const connectAs = (source) => connectPubSub({ servers: NATS_URL, audience, instance: INSTANCE, source });

/** POST /messages: 201 once the message is stored and both of its events are. */
function messagesController(pubsub) {
  const messages = new Map();
  const publish = (topic, data, id) => pubsub.local.topic(topic).forward(pubsub.global, data, { id });

  async function post(request) {
    // A client that repeats its call repeats the key: the events have the same ids again, and are stored once.
    const id = request.headers['idempotency-key'] ?? randomUUID();
    const { author, target, content } = await json(request);
    const message = messages.get(id) ?? {
      _id: id,
      objectType: 'whatsup',
      author,
      content,
      published: Date.now(),
    };
    const activity = {
      verb: 'post',
      published: message.published,
      actor: { objectType: 'user', _id: author },
      object: { objectType: 'whatsup', _id: id },
      target: [{ objectType: 'user', _id: target }],
    };
    messages.set(id, message);
    await publish('message:stored', message, `stored ${id}`);
    await publish('message:activity', activity, `activity ${id}`);
    return message;
  }

  return createServer(async (request, response) => {
    const answer = (status, body) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    try {
      answer(201, await post(request));
    } catch (error) {
      const problem = error instanceof ProblemError ? error : new ProblemError('internal', String(error));
      answer(problem.status, { code: problem.code, detail: problem.detail });
    }
  });
}

/** Each user's activities. Delivered at least once: the event's id tells what is there already. */
async function timeline(pubsub) {
  const entries = new Map();
  const failures = [];
  const subscription = pubsub.local.topic('message:activity').subscribe(
    async ({ object }, { event, delivery }) => {
      if (object._id === FAILS_FIRST && delivery.tries === 1) {
        failures.push(event.id);
        throw new Error('the database of the timeline has a hiccup');
      }
      entries.set(event.id, object._id);
    },
    { durable: 'timeline' },
  );
  await subscription.ready;
  return { entries, failures };
}

async function token(sub, role) {
  return new SignJWT({ aud: audience, sub, role })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('10m')
    .sign(new TextEncoder().encode(JWT_SECRET));
}

async function call(jwt, method, path) {
  const response = await fetch(POSTHORN_URL + path, { method, headers: { authorization: `Bearer ${jwt}` } });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.detail}`);
  return answer;
}

/** A socket that is subscribed; keeps what it hears. */
async function browser(sub, topics) {
  const { url } = await call(await token(sub, 'user'), 'GET', '/v1/sign');
  const socket = new WebSocket(url);
  const received = [];
  const waiting = new Set(topics);
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (data) => {
      const frame = JSON.parse(data.toString());
      if (frame.action === 'welcome')
        for (const topic of topics) socket.send(JSON.stringify({ action: 'subscribe', topic }));
      if (frame.action === 'error') reject(new Error(frame.detail));
      if (frame.action === 'subscribed' && waiting.delete(frame.topic) && waiting.size === 0) resolve();
      if (frame.action === 'message') received.push(frame);
    });
  });
  return { socket, received };
}

async function until(done, what) {
  const deadline = Date.now() + 30_000;
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen within 30 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const wrong = [];
function expectEqual(what, got, wanted) {
  const [shown, expected] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (shown === expected) {
    console.log(`  ok   ${what}: ${shown.length > 60 ? `all ${got.length}` : shown}`);
  } else {
    console.log(`  FAIL ${what}: ${shown}, expected ${expected}`);
    wrong.push(what);
  }
}

const COUNT = 20;
const FAILS_FIRST = 'message-7';
const keys = Array.from({ length: COUNT }, (_, n) => `message-${n}`);

await call(await token('messages', 'service'), 'POST', '/v1/audience');
const [forController, forTimeline] = [connectAs('messages'), connectAs('timeline')];
const { entries, failures } = await timeline(forTimeline);
const ann = await browser('ann', ['message:stored', 'message:activity']);
const server = messagesController(forController).listen(0, '127.0.0.1');
await once(server, 'listening');
const post = (key, content) =>
  fetch(`http://127.0.0.1:${server.address().port}/messages`, {
    method: 'POST',
    headers: { 'idempotency-key': key },
    body: JSON.stringify({ author: 'ann', target: 'bob', content }),
  });

const answers = await Promise.all([...keys, keys[3]].map((key) => post(key, `This is ${key}.`)));
const tooLarge = await post('message-huge', 'x'.repeat(1 << 20));
const idsOf = (topic) => ann.received.filter((frame) => frame.topic === topic).map(({ id }) => id);
await until(() => entries.size >= COUNT, 'the timeline of all activities');
await until(() => ann.received.length >= 2 * COUNT, 'the delivery to the browser');

console.log(`\n${COUNT} messages, one of them posted twice, and one too large\n`);
expectEqual('answers', [...new Set(answers.map(({ status }) => status))], [201]);
expectEqual(
  'answer to the one that is too large',
  [tooLarge.status, (await tooLarge.json()).code],
  [413, 'payload_too_large'],
);
expectEqual(
  'stored messages that the browser heard',
  idsOf('message:stored').sort(),
  keys.map((key) => `stored ${key}`).sort(),
);
expectEqual(
  'activities that the browser heard',
  idsOf('message:activity').sort(),
  keys.map((key) => `activity ${key}`).sort(),
);
expectEqual('activities in the timeline', [...entries.values()].sort(), [...keys].sort());
expectEqual('activities that came again', failures, [`activity ${FAILS_FIRST}`]);

ann.socket.close();
server.close();
await Promise.all([forController.close(), forTimeline.close()]);
if (wrong.length > 0) {
  console.error(`not as expected: ${wrong.join(', ')}`);
  process.exit(1);
}
