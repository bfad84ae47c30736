/** A load of every kind on an installation, by clients that do what ours are told to do, and nothing more. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { WebSocket } from 'ws';
import { built } from '../checkout.mjs';
import { signToken } from '../embedded/token.mjs';
import { HttpClient } from './http-client.mjs';
import { SERVICE } from './installation.mjs';
import { followStream, poll } from './listeners.mjs';

const AUDIENCE = 'load';
const TOPIC = 'load/';
const USERS = ['ann', 'bob', 'eve'];
/** Invites, notifications and each kind of call beside them, for each event of a lane. */
const BESIDE = 0.5;
/** How long something that is told `unavailable` is tried again before that counts as an outage, in milliseconds. */
const PATIENCE = 60_000;
/** How long everything may take to be heard and written once nothing is published any more, in milliseconds. */
const SETTLE = 60_000;
/** Seconds. */
const HOUR = 3_600;

/**
 * @typedef {import('./installation.mjs').Installation} Installation
 * @typedef {import('./tally.mjs').Tally} Tally
 * @typedef {import('../../libs/client/src/index.js').Posthorn} Posthorn
 */

export class Traffic {
  #installation;
  #tally;
  #secret;
  #rate;
  #stopped = false;
  /** @type {Promise<unknown>[]} */
  #running = [];
  /** @type {(() => Promise<unknown> | unknown)[]} */
  #ends = [];
  /** Clients of the SDK whose connections are watched, by their names. @type {Map<string, Posthorn>} */
  #clients = new Map();
  /** Connections that did not stay. @type {string[]} */
  #left = [];
  /** `<event> <target>` of each notification that there has to be. @type {Set<string>} */
  #notified = new Set();
  #http = new HttpClient();
  /** @type {Map<string, Set<number>>} */
  #consumed = new Map();

  /**
   * @param {Installation} installation
   * @param {Tally} tally
   * @param {{ secret: string, rate: number }} options secret: signs tokens; rate: events of all lanes per second, at most
   */
  constructor(installation, tally, { secret, rate }) {
    this.#installation = installation;
    this.#tally = tally;
    this.#secret = secret;
    this.#rate = rate;
  }

  /** Resolves once everybody listens, and publishes. */
  async start() {
    const { connectPubSub } = await built('libs/bus/src/index.js');
    const { Posthorn } = await built('libs/client/src/index.js');
    const { url } = this.#installation;
    const service = await this.#token('svc', 'service');
    await this.#ask(service, 'POST', '/v1/audience');

    const client = (/** @type {string} */ name, /** @type {'websocket' | 'stream'} */ transport) => {
      const one = new Posthorn({ url, WebSocket, transport, getToken: () => this.#token(name, 'service') });
      this.#clients.set(name, one);
      this.#ends.push(() => one.close());
      one.on('state', (/** @type {{ status: string }} */ { status }) => {
        if (status !== 'connected' && !this.#stopped) this.#left.push(name);
      });
      one.on('error', (/** @type {{ code: string, message: string }} */ { code, message }) => {
        if (!['unavailable', 'network', 'timeout'].includes(code))
          this.#tally.find(`${name} was told ${code}: ${message}`);
      });
      one.on('gap', (/** @type {{ topic: string }} */ { topic }) =>
        this.#tally.find(`${name} was told that history of ${topic} is lost`),
      );
      return one;
    };
    const bus = (/** @type {string} */ name) => {
      const one = connectPubSub({
        servers: this.#installation.natsUrl.split(','),
        audience: AUDIENCE,
        source: SERVICE,
        credentials: this.#installation.natsLogin(`service-${SERVICE}`),
        onError: (/** @type {unknown} */ error) => this.#tally.find(`${name}: ${error}`),
      });
      this.#ends.push(() => one.close());
      return one;
    };
    const socket = client('socket', 'websocket');
    const stream = client('stream', 'stream');
    const pattern = client('pattern', 'websocket');
    const [first, second] = [bus('first service'), bus('second service')];

    /** @type {Record<string, (n: number, message: object) => Promise<unknown>>} */
    const lanes = {
      'rest-0': (n, message) => this.#hook(service, 'rest-0', n, message),
      'rest-1': (n, message) => this.#hook(service, 'rest-1', n, message),
      socket: (n, message) => socket.publish(`${TOPIC}socket`, message, { id: `socket-${n}` }),
      stream: (n, message) => stream.publish(`${TOPIC}stream`, message, { id: `stream-${n}` }),
      'service-0': (n, message) => this.#overNats(first, 'service-0', n, message),
      'service-1': (n, message) => this.#overNats(second, 'service-1', n, message),
    };
    const names = Object.keys(lanes);
    const topics = names.map((lane) => TOPIC + lane);

    for (const [name, listener] of /** @type {const} */ ([
      ['the socket', socket],
      ['the stream', stream],
    ])) {
      const handler = this.#tally.handler(name, names);
      await Promise.all(
        topics.map(
          (topic) => listener.subscribe(topic, (/** @type {any} */ event) => handler.hear(event)).ready,
        ),
      );
    }
    const everything = this.#tally.handler('the pattern', names);
    await pattern.subscribe(`${TOPIC}*`, (/** @type {any} */ event) => everything.hear(event)).ready;

    const ann = await this.#token('ann', 'user');
    const viewer = this.#tally.handler('the event stream', names);
    const browser = followStream({
      url,
      token: ann,
      topics,
      hear: (_, event) => viewer.hear(event),
      find: (what) => this.#tally.find(what),
    });
    this.#ends.push(() => browser.close());
    await browser.ready;

    // A poll brings one message: it could not keep up with all.
    const poller = this.#tally.handler('the poll', ['rest-0']);
    const polls = poll({
      audience: AUDIENCE,
      channels: [`${TOPIC}rest-0`],
      // It waits for as long as nothing comes: its time is no wait of a call.
      ask: (path, body, signal) => this.#ask(ann, 'POST', path, body, { signal, waits: true }),
      hear: (_, event) => poller.hear(event),
    });
    this.#ends.push(() => polls.close());

    for (const one of [first, second]) {
      for (const lane of names) {
        const seen = this.#consumed.get(lane) ?? new Set();
        this.#consumed.set(lane, seen);
        const taken = (/** @type {{ n: number }} */ { n }) => {
          if (seen.has(n)) this.#tally.redelivered += 1;
          seen.add(n);
        };
        const subscription = one.global.topic(TOPIC + lane).subscribe(taken, { durable: `audit-${lane}` });
        await subscription.ready;
      }
    }

    const pace = (1_000 * names.length) / this.#rate;
    for (const lane of names) this.#run(pace, (n) => this.#publish(lane, n, lanes[lane]));
    this.#run(pace / BESIDE, (n) => this.#invite(first, n));
    this.#run(pace / BESIDE, (n) => this.#notify(service, n));
    for (const user of USERS) {
      const token = await this.#token(user, 'user');
      this.#run(pace / BESIDE, () => this.#readInbox(token));
    }
    this.#run(pace / BESIDE, () => this.#ask(service, 'GET', '/v1/sign'));
    const admin = await this.#token('admin', 'admin');
    this.#run(pace / BESIDE, (n) => this.#manage(admin, n));
  }

  /**
   * Resolves once as many more events were acknowledged as there are in some time at most.
   * @param {number} seconds
   */
  async more(seconds) {
    const goal = this.#tally.acknowledged + this.#rate * seconds;
    const deadline = Date.now() + PATIENCE;
    while (this.#tally.acknowledged < goal) {
      if (Date.now() > deadline) throw new Error(`publishing has not gone on within ${PATIENCE / 1_000} s`);
      await sleep(20);
    }
  }

  /** The clients that were not connected all the time since this was asked last. */
  takeLeft() {
    return [...new Set(this.#left.splice(0))];
  }

  /** Stops publishing, waits until all is heard and written, and judges. */
  async judge() {
    const tally = this.#tally;
    this.#stopped = true;
    await Promise.all(this.#running);
    const deadline = Date.now() + SETTLE;
    const isIn = async () => (await this.#rows()).length >= this.#notified.size;
    while (Date.now() < deadline && !(tally.complete && this.#unconsumed() === 0 && (await isIn())))
      await sleep(50);
    const stored = await this.#stored();
    const storedJudged = tally.judgeStored(stored);
    const heardJudged = tally.judgeHeard();
    const unconsumed = this.#unconsumed();
    if (unconsumed > 0) tally.find(`${unconsumed} events never came to the durable consumers`);
    const rows = await this.#rows();
    const rowsJudged = tally.judgeRows(this.#notified, rows);
    const wrong = await this.#query(
      `SELECT i.user_id FROM notifier.inbox i
       LEFT JOIN notifier.notification n ON n.audience = i.audience AND n.target = i.user_id
         AND NOT n.read AND NOT n.acknowledged AND NOT n.withdrawn
       GROUP BY i.audience, i.user_id HAVING count(n.id) <> i.unread_count`,
    );
    if (wrong.length > 0) tally.find(`${wrong.length} inboxes count their unread notifications wrongly`);
    const letters = await this.#query('SELECT 1 FROM notifier.dead_letter');
    if (letters.length > 0) tally.find(`${letters.length} dead letters`);
    return {
      events: { acknowledged: tally.acknowledged, stored: stored.length, ...storedJudged },
      heard: { events: tally.heard, ...heardJudged },
      consumed: { events: this.#consumedCount(), redelivered: tally.redelivered, lost: unconsumed },
      inboxes: { expected: this.#notified.size, rows: rows.length, ...rowsJudged, wrongCounts: wrong.length },
    };
  }

  async close() {
    this.#stopped = true;
    for (const end of this.#ends.splice(0).toReversed()) await end();
    await Promise.all(this.#running);
    this.#http.close();
  }

  /**
   * Does something again and again, one after the other.
   * @param {number} pace milliseconds from one beginning to the next, where there is time
   * @param {(n: number) => Promise<unknown>} action
   */
  #run(pace, action) {
    const running = (async () => {
      for (let n = 0; !this.#stopped; n++) {
        const began = performance.now();
        await action(n);
        await sleep(Math.max(1, pace - (performance.now() - began)));
      }
    })();
    this.#running.push(running);
    running.catch((error) => this.#tally.find(`the load broke: ${error}`));
  }

  /**
   * @param {string} lane
   * @param {number} n
   * @param {((n: number, message: object) => Promise<unknown>) | undefined} publish
   */
  async #publish(lane, n, publish) {
    const began = performance.now();
    try {
      await publish?.(n, { lane, n, at: Date.now() });
      this.#tally.acknowledge(lane, n);
    } catch (error) {
      // Later events of this lane would look as if they had overtaken it.
      throw new Error(`event ${n} of ${lane} was refused`, { cause: error });
    } finally {
      this.#tally.waited('publish', performance.now() - began, lane);
    }
  }

  /**
   * @param {string} token
   * @param {string} lane
   * @param {number} n
   * @param {object} message
   */
  #hook(token, lane, n, message) {
    const body = { topic: TOPIC + lane, action: 'publish', message };
    return this.#ask(token, 'POST', '/v1/hook', body, { key: `${lane}-${n}` });
  }

  /**
   * @param {any} pubsub
   * @param {string} lane
   * @param {number} n
   * @param {object} message
   */
  #overNats(pubsub, lane, n, message) {
    const topic = pubsub.global.topic(TOPIC + lane);
    return this.#again(() => topic.publish(message, { id: `${lane}-${n}` }));
  }

  /**
   * @param {any} pubsub
   * @param {number} n
   */
  async #invite(pubsub, n) {
    const id = `invite-${n}`;
    const target = /** @type {string} */ (USERS[n % USERS.length]);
    const payload = { author: 'mia', target, community: `community-${n}` };
    const topic = pubsub.local.topic('community:membership:invite');
    await this.#again(() => topic.publish(payload, { id }));
    this.#notified.add(`${id} ${target}`);
  }

  /**
   * @param {string} token
   * @param {number} n
   */
  async #notify(token, n) {
    const target = /** @type {string} */ (USERS[n % USERS.length]);
    const answer = await this.#ask(
      token,
      'POST',
      '/v1/notifications',
      {
        title: 'Load',
        action: 'came',
        object: `object-${n}`,
        link: 'https://load.example',
        level: 'info',
        target: [{ objectType: 'user', id: target }],
      },
      { key: `notify-${n}` },
    );
    for (const { id, target } of answer?.events ?? []) this.#notified.add(`${id} ${target}`);
  }

  /** @param {string} token */
  async #readInbox(token) {
    const page = await this.#ask(token, 'GET', '/v1/notifications?limit=20');
    const [item] = page?.items ?? [];
    if (!item) return;
    await this.#ask(token, 'PUT', `/v1/notifications/${item.id}/read`, { value: !item.read });
    await this.#ask(token, 'GET', '/v1/notifications/unread');
  }

  /**
   * Topics at the registry, API tokens at auth, timelines at the notifier.
   * @param {string} token
   * @param {number} n
   */
  async #manage(token, n) {
    await this.#ask(token, 'POST', '/v1/topic', { topic: `managed/${n % 100}` });
    await this.#ask(token, 'GET', '/v1/tokens');
    await this.#ask(token, 'GET', `/v1/timeline?target=community-${n}`);
    if (n % 10 === 0) await this.#ask(token, 'POST', '/v1/revocations', { tokenId: randomUUID() });
  }

  /**
   * One call over HTTP, repeated for as long as it is answered 503 `unavailable` with `Retry-After`. Anything else that
   * is no success is a finding, and so is a connection that breaks.
   * @param {string} token
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {{ key?: string, signal?: AbortSignal, waits?: boolean }} [options] key: an idempotency key; waits: the answer
   *   waits for something to happen
   * @returns {Promise<any>} undefined where it failed
   */
  async #ask(token, method, path, body, { key, signal, waits = false } = {}) {
    const tally = this.#tally;
    const call = `${method} ${path.replace(/[0-9a-f-]{36}|\?.*/g, '…')}`;
    const began = performance.now();
    for (;;) {
      tally.requests.sent += 1;
      const sent = performance.now();
      try {
        const { status, after, text } = await this.#http.send(this.#installation.url + path, {
          method,
          headers: { authorization: `Bearer ${token}`, ...(key && { 'idempotency-key': key }) },
          body,
          signal,
        });
        if (!waits) tally.waited('call', performance.now() - sent, call);
        if (status < 300) return text === '' ? {} : JSON.parse(text);
        const code = text.startsWith('{') ? JSON.parse(text).code : text;
        if (status === 503 && code === 'unavailable' && after !== undefined) {
          tally.requests.unavailable += 1;
          if (performance.now() - began < PATIENCE) {
            await sleep(Number(after) * 1_000);
            continue;
          }
        }
        tally.find(`${call} was answered ${status} ${text.slice(0, 300)}`);
      } catch (error) {
        if (signal?.aborted) return undefined;
        const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
        tally.find(`${call} failed: ${code ?? ''} ${message}`);
      }
      return undefined;
    }
  }

  /**
   * A publish over NATS, repeated under its id while the SDK says `unavailable`.
   * @param {() => Promise<unknown>} publish
   */
  async #again(publish) {
    for (const began = performance.now(); ; ) {
      try {
        return await publish();
      } catch (error) {
        const { code } = /** @type {{ code?: string }} */ (error);
        if (code !== 'unavailable' || performance.now() - began > PATIENCE) throw error;
        this.#tally.refused += 1;
        await sleep(100);
      }
    }
  }

  #unconsumed() {
    return this.#tally.acknowledged - this.#consumedCount();
  }

  #consumedCount() {
    let count = 0;
    for (const seen of this.#consumed.values()) count += seen.size;
    return count;
  }

  /** All events of the lanes, as they are stored. */
  async #stored() {
    const { user, password } = this.#installation.natsLogin('operator');
    const nc = await connect({ servers: this.#installation.natsUrl.split(','), user, pass: password });
    try {
      const jsm = await jetstreamManager(nc);
      const filter_subjects = `ph.${AUDIENCE}.global.-.load.*`;
      const { state } = await jsm.streams.info('PH_GLOBAL');
      const consumer = await jetstream(nc).consumers.get('PH_GLOBAL', { filter_subjects });
      /** @type {{ lane: string, n: number }[]} */
      const stored = [];
      for await (const message of await consumer.consume()) {
        const { lane, n } = /** @type {any} */ (message.json());
        stored.push({ lane, n });
        if (message.info.pending === 0 || message.seq >= state.last_seq) break;
      }
      return stored;
    } finally {
      await nc.close();
    }
  }

  async #rows() {
    const rows = await this.#query('SELECT event_id, target FROM notifier.notification');
    return rows.map(({ event_id, target }) => `${event_id} ${target}`);
  }

  /**
   * @param {string} sql
   * @returns {Promise<any[]>}
   */
  async #query(sql) {
    const client = new pg.Client(this.#installation.databaseUrl);
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  }

  /**
   * @param {string} sub
   * @param {string} role
   */
  #token(sub, role) {
    const exp = Math.floor(Date.now() / 1_000) + 24 * HOUR;
    return signToken(this.#secret, { aud: AUDIENCE, sub, role, exp });
  }
}
