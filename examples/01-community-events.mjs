/**
 * 01: community events become notifications on the right people's sockets.
 *
 * Publishes the example events of the documented systems and a file of 1,000 community events of four
 * audiences, one in fifty malformed, and shows what arrives: every notification at its recipient, none
 * elsewhere, and the malformed ones as dead letters. Ends with 1 when anything is missing or too much.
 *
 *     npm start                                 # in one terminal
 *     set -a; . .posthorn/dev.env; set +a       # in another one
 *     node examples/01-community-events.mjs
 */
import { readFileSync } from 'node:fs';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect, headers as natsHeaders } from '@nats-io/transport-node';
import { SignJWT } from 'jose';
import { WebSocket } from 'ws';
import { connectPubSub } from '../dist/libs/bus/src/index.js';
import { readDeadLetter } from '../dist/libs/bus/src/platform.js';
import { storedSubject } from '../dist/libs/contracts/src/index.js';
import { COMMUNITIES, managersOf } from './data/make-community-events.mjs';

const {
  POSTHORN_URL = 'http://localhost:8080',
  NATS_URL = 'nats://127.0.0.1:4222',
  JWT_SECRET,
  INSTANCE = 'main',
} = process.env;
if (!JWT_SECRET) throw new Error('JWT_SECRET is not set: source the dev.env that npm start wrote');
const read = (file) => readFileSync(new URL(`data/${file}`, import.meta.url), 'utf8');

// One run must not meet the events of another one.
const run = Date.now().toString(36);
const events = read('community-events.ndjson')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line))
  .map((event) => ({ ...event, audience: `${event.audience} ${run}` }));
const documented = JSON.parse(read('documented-events.json'));
const documentedAudience = `documented ${run}`;

const token = (aud, sub, role = 'user') =>
  new SignJWT({ aud, sub, role })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('10m')
    .sign(new TextEncoder().encode(JWT_SECRET));

async function call(jwt, method, path, body) {
  const response = await fetch(POSTHORN_URL + path, {
    method,
    headers: { authorization: `Bearer ${jwt}`, ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.detail}`);
  return answer;
}

/** A socket of one user, subscribed; keeps what it is sent. */
async function listen(audience, user, topics) {
  const { url } = await call(await token(audience, user), 'GET', '/v1/sign');
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
      if (frame.action === 'message') {
        received.push(frame);
        show(audience, user, frame);
      }
    });
  });
  return { audience, user, socket, received };
}

/** How many lines of each part are printed: the rest is counted at the end. */
const SHOWN = 12;
const printed = new Map();

function show(audience, user, { topic, message }) {
  const n = (printed.get(audience === documentedAudience) ?? 0) + 1;
  printed.set(audience === documentedAudience, n);
  if (n === SHOWN) console.log('  … and so on');
  if (n >= SHOWN && !message.notification) return;
  const notification = message.notification ?? message;
  const what = topic.startsWith('usernotification')
    ? `${notification.withdrawn ? 'withdrawn: ' : ''}${notification.category}, by ${notification.subject.id}`
    : JSON.stringify(message);
  console.log(`  ${user.padEnd(20)} ${topic.padEnd(26)} ${what.slice(0, 90)}`);
}

async function until(done, what) {
  const deadline = Date.now() + 45_000;
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen within 45 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const failures = [];
const expectEqual = (what, got, wanted) => {
  const fine = JSON.stringify(got) === JSON.stringify(wanted);
  console.log(
    `  ${fine ? 'ok  ' : 'FAIL'} ${what}: ${JSON.stringify(got)}${fine ? '' : `, expected ${JSON.stringify(wanted)}`}`,
  );
  if (!fine) failures.push(what);
};

const nc = await connect({ servers: NATS_URL });
const jsm = await jetstreamManager(nc);

console.log('\nEvents as the documents write them\n');
const documentedService = await token(documentedAudience, 'platform', 'service');
await call(documentedService, 'POST', '/v1/audience');
const person = await listen(documentedAudience, '798', [
  'usernotification:created',
  'user:798',
  'personal.798',
  '__general__',
  'system/events',
]);
const stranger = await listen(documentedAudience, '123', [
  'usernotification:created',
  'user:123',
  'personal.123',
]);
const documentedBus = connectPubSub({
  servers: NATS_URL,
  audience: documentedAudience,
  instance: INSTANCE,
  source: 'examples',
});
for (const { scope, topic, payload } of documented) await documentedBus[scope].topic(topic).publish(payload);
await until(() => person.received.length >= 6, 'the delivery of the documented events');
expectEqual('topics that 798 heard', person.received.map(({ topic }) => topic).sort(), [
  '__general__',
  'personal.798',
  'system/events',
  'user:798',
  'usernotification:created',
  'usernotification:created',
]);
expectEqual('messages that somebody else heard', stranger.received.length, 0);

console.log('\n1,000 community events of four audiences\n');
const audiences = [...new Set(events.map(({ audience }) => audience))];
const pubsubs = new Map();
const services = new Map();
for (const audience of audiences) {
  const service = await token(audience, 'platform', 'service');
  services.set(audience, service);
  await call(service, 'POST', '/v1/audience');
  for (const community of COMMUNITIES) {
    await call(service, 'PUT', `/v1/communities/${encodeURIComponent(community)}/managers`, {
      managers: managersOf(community),
    });
  }
  pubsubs.set(
    audience,
    connectPubSub({ servers: NATS_URL, audience, instance: INSTANCE, source: 'examples' }),
  );
}
const wanted = new Map();
for (const { audience, recipients } of events) {
  for (const recipient of recipients ?? []) {
    const key = JSON.stringify([audience, recipient]);
    wanted.set(key, (wanted.get(key) ?? 0) + 1);
  }
}
const people = await Promise.all(
  [...wanted.keys()].map((key) => {
    const [audience, user] = JSON.parse(key);
    return listen(audience, user, ['usernotification:created', 'usernotification:updated']);
  }),
);
const began = Date.now();
const deadBefore = (await jsm.streams.info('PH_DEAD')).state.last_seq;
await Promise.all(
  events.map(async ({ audience, topic, id, payload, raw, recipients }) => {
    if (recipients) return pubsubs.get(audience).local.topic(topic).publish(payload, { id });
    // Our own SDK refuses what does not fit its schema: a foreign publisher does not ask.
    const headers = natsHeaders();
    headers.set('ce-id', id);
    const subject = storedSubject(audience, 'local', INSTANCE, `-.${topic.replaceAll(':', '.')}`);
    nc.publish(subject, raw ?? JSON.stringify(payload), { headers });
  }),
);
await nc.flush();
const total = [...wanted.values()].reduce((sum, n) => sum + n, 0);
const created = () =>
  people.flatMap(({ received }) => received.filter(({ topic }) => topic === 'usernotification:created'));
await until(() => created().length >= total, `the delivery of ${total} notifications`);
const seconds = (Date.now() - began) / 1_000;

// One invite is withdrawn: its target hears of it.
const invite = events.findLast(
  ({ topic, recipients }) => topic === 'community:membership:invite' && recipients,
);
await pubsubs
  .get(invite.audience)
  .local.topic('community:membership:invitation:cancel')
  .publish(invite.payload);
const updates = () =>
  people.flatMap(({ received }) => received.filter(({ topic }) => topic === 'usernotification:updated'));
await until(() => updates().length > 0, 'the withdrawal');
const malformed = events.filter(({ recipients }) => recipients === null);
let dead = [];
const deadline = Date.now() + 20_000;
for (;;) {
  const { state } = await jsm.streams.info('PH_DEAD');
  dead = [];
  for (let seq = deadBefore + 1; seq <= state.last_seq; seq++) {
    const stored = await jsm.streams.getMessage('PH_DEAD', { seq });
    if (stored) dead.push(readDeadLetter(stored.header, stored.data));
  }
  if (dead.length >= malformed.length || Date.now() > deadline) break;
  await new Promise((resolve) => setTimeout(resolve, 50));
}

console.log('\nWhat came of them\n');
console.log(
  `  ${events.length} events, ${total} notifications on ${people.length} sockets in ${seconds.toFixed(1)} s`,
);
const got = people.filter(
  ({ audience, user, received }) =>
    received.filter(({ topic }) => topic.endsWith('created')).length ===
    wanted.get(JSON.stringify([audience, user])),
);
expectEqual('people who heard exactly their own', got.length, people.length);
const strays = people.flatMap(({ user, received }) =>
  received.filter(({ topic, message }) => topic.endsWith('created') && message.target !== user),
);
expectEqual('notifications that reached somebody else', strays.length, 0);
expectEqual(
  'notifications that came twice',
  created().length - new Set(created().map(({ message }) => message.id)).size,
  0,
);
expectEqual(
  'withdrawn invites that their targets heard of',
  updates().map(({ message }) => message.notification?.withdrawn),
  [true],
);
expectEqual('dead letters', dead.map(({ eventId }) => eventId).sort(), malformed.map(({ id }) => id).sort());
console.log('\nWhy some are dead letters\n');
for (const reason of new Set(dead.map(({ reason }) => reason)))
  console.log(`  ${dead.filter((letter) => letter.reason === reason).length} × ${reason}`);
console.log('\nThose of the first audience, as an operator sees them:\n');
console.log(`  npm run dead-letters -- list --audience '${audiences[0]}'`);
const inbox = await call(await token(people[0].audience, people[0].user), 'GET', '/v1/notifications?limit=1');
console.log(
  `\nGET /v1/notifications of ${people[0].user}: ${inbox.unread_count} unread, the newest is ${inbox.items[0].category}\n`,
);

for (const { socket } of [...people, person, stranger]) socket.close();
await Promise.all([...pubsubs.values(), documentedBus].map((pubsub) => pubsub.close()));
await nc.close();
if (failures.length > 0) {
  console.error(`not as expected: ${failures.join(', ')}`);
  process.exit(1);
}
