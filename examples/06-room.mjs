/**
 * 06: a server's call is caught in the room.
 *
 * Two people are in two sessions of one event, one of another event is elsewhere. A server publishes to a session, to
 * the event and to the organization, with an API token that an admin issued for it: each hears what is for its room,
 * and nobody else's. Ends with 1 when anything is missing or too much.
 *
 *     npm start                                 # in one terminal
 *     set -a; . .posthorn/dev.env; set +a       # in another one
 *     node examples/06-room.mjs
 */
import { randomUUID } from 'node:crypto';
import { SignJWT } from 'jose';
import { WebSocket } from 'ws';

const {
  POSTHORN_URL = 'http://localhost:8080',
  AUDIENCE = 'demo',
  JWT_SECRET,
  POSTHORN_TOKEN_ADMIN,
} = process.env;
if (!JWT_SECRET || !POSTHORN_TOKEN_ADMIN) throw new Error('Source the dev.env that npm start wrote');

const webinar = randomUUID();
const rooms = {
  ann: { event_id: webinar, session_id: randomUUID() },
  ben: { event_id: webinar, session_id: randomUUID() },
  cleo: { event_id: randomUUID(), session_id: randomUUID() },
};

async function call(authorization, method, path, body) {
  const response = await fetch(POSTHORN_URL + path, {
    method,
    headers: { authorization, ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  return { status: response.status, answer: text === '' ? undefined : JSON.parse(text) };
}

/** Whoever issues the tokens of members says which room they are in. */
const memberToken = (sub, room) =>
  new SignJWT({ aud: AUDIENCE, sub, room })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('10m')
    .sign(new TextEncoder().encode(JWT_SECRET));

/** A member in its room, subscribed to an event name; keeps the messages that it hears. */
async function enter(name, eventName) {
  const { answer } = await call(`Bearer ${await memberToken(name, rooms[name])}`, 'GET', '/v1/sign');
  const socket = new WebSocket(answer.url);
  const heard = [];
  const waiting = new Set();
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (data) => {
      const frame = JSON.parse(data.toString());
      if (frame.action === 'error') reject(new Error(frame.detail));
      if (frame.action === 'welcome') {
        // One event name is three topics: this room's, its event's, and that of all rooms.
        const { event_id, session_id } = frame.room;
        for (const where of [`session/${session_id}`, `event/${event_id}`, 'organization']) {
          const topic = `room/${where}/${eventName}`;
          waiting.add(topic);
          socket.send(JSON.stringify({ action: 'subscribe', topic }));
        }
      }
      if (frame.action === 'subscribed' && waiting.delete(frame.topic) && waiting.size === 0) resolve();
      if (frame.action === 'message') {
        console.log(`  ${name.padEnd(5)} ${JSON.stringify(frame.message)}`);
        heard.push(frame.message.to);
      }
    });
  });
  return { name, socket, heard };
}

const failures = [];
function expectEqual(what, got, wanted) {
  const fine = JSON.stringify(got) === JSON.stringify(wanted);
  const expected = fine ? '' : `, expected ${JSON.stringify(wanted)}`;
  console.log(`  ${fine ? 'ok  ' : 'FAIL'} ${what}: ${JSON.stringify(got)}${expected}`);
  if (!fine) failures.push(what);
}

const admin = `Bearer ${POSTHORN_TOKEN_ADMIN}`;
const issued = await call(admin, 'POST', '/v1/tokens', {
  name: 'examples/06-room.mjs',
  scopes: ['publish:session', 'publish:event', 'publish:organization'],
});
if (issued.status !== 201) throw new Error(`POST /v1/tokens: ${JSON.stringify(issued.answer)}`);
const { id, token } = issued.answer;

console.log('\nWhat a server calls, and who hears it\n');
const people = await Promise.all(Object.keys(rooms).map((name) => enter(name, 'hello')));
const calls = [
  ['only Ann', { type: 'session', ...rooms.ann }],
  ['the webinar', { type: 'event', event_id: webinar }],
  ['everybody', { type: 'organization' }],
];
for (const [to, scope] of calls) {
  const body = { scope, payload: { event: { eventName: 'hello', data: { to } } } };
  const { status } = await call(token, 'POST', '/api/v1/pub_subs', body);
  expectEqual(`published to ${to}`, status, 202);
}
const deadline = Date.now() + 20_000;
while (!people.every(({ heard }) => heard.includes('everybody'))) {
  if (Date.now() > deadline) throw new Error('not everybody heard of it within 20 s');
  await new Promise((resolve) => setTimeout(resolve, 20));
}

console.log('\nWhat came of it\n');
const wanted = {
  ann: ['everybody', 'only Ann', 'the webinar'],
  ben: ['everybody', 'the webinar'],
  cleo: ['everybody'],
};
for (const { name, heard } of people) expectEqual(`${name} heard`, heard.toSorted(), wanted[name]);
expectEqual('the token ends', (await call(admin, 'DELETE', `/v1/tokens/${id}`)).status, 204);
const late = { scope: { type: 'organization' }, payload: { event: { eventName: 'hello', data: {} } } };
expectEqual('it opens nothing more', (await call(token, 'POST', '/api/v1/publish', late)).status, 401);

for (const { socket } of people) socket.close();
if (failures.length > 0) {
  console.error(`not as expected: ${failures.join(', ')}`);
  process.exit(1);
}
