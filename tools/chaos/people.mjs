/** Who uses the installation in a run: clients of the SDK, each behind a link of its own, and a service. */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { WebSocket } from 'ws';
import { numberOf } from './ledger.mjs';
import { Link } from './link.mjs';

/**
 * @typedef {import('../../libs/client/src/index.js')} Sdk
 * @typedef {import('../../libs/client/src/index.js').Posthorn} Posthorn
 * @typedef {import('./installation.mjs').Installation} Installation
 * @typedef {import('./ledger.mjs').Ledger} Ledger
 */

export const TOPICS = ['chaos/a', 'chaos/b', 'chaos/c', 'chaos/d'];
const PATTERN = 'chaos/*';
const BROADCAST = '__broadcast__';
const ROOMS = ['lobby', 'stage'];
const USERS = 3;
/** How many seconds tokens are good for. */
const SHORTEST_TOKEN = 5;
const LONGEST_TOKEN = 30;

/** What an application never sees where client and server do what they promise. */
const FAULTS = ['handler_failed', 'protocol', 'request_invalid', 'payload_invalid', 'forbidden', 'internal'];

/** One client: by its index it is a user with a room and an inbox, or a service that hears a pattern. */
export class Person {
  link;
  /** @type {Posthorn | undefined} */
  #client;
  #rooms;
  #index;
  #ledger;
  #installation;
  #random;
  #published = 0;
  /** The id of the token in use. */
  #tokenId = '';

  /**
   * @param {number} index
   * @param {{ sdk: Sdk, ledger: Ledger, installation: Installation, random: () => number }} world
   */
  constructor(index, { sdk, ledger, installation, random }) {
    this.#index = index;
    this.#ledger = ledger;
    this.#installation = installation;
    this.#random = random;
    this.isUser = index % 4 !== 3;
    this.sub = this.isUser ? `user-${index % USERS}` : `service-${index}`;
    this.room = this.isUser ? /** @type {string} */ (ROOMS[index % ROOMS.length]) : undefined;
    this.#rooms = new sdk.Rooms();
    this.link = new Link(() => installation.gatewayPort);
  }

  get client() {
    if (!this.#client) throw new Error(`${this.#name} has not begun`);
    return this.#client;
  }

  /** Connects, and resolves once all is subscribed. */
  async begin() {
    await this.link.open();
    const client = this.#rooms.connect({
      url: this.link.url,
      WebSocket: /** @type {any} */ (WebSocket),
      // A connection that `fetch` kept for the next call would look as if the SDK had left it.
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init?.headers, Connection: 'close' } }),
      transport: this.#index % 6 === 5 ? 'stream' : 'auto',
      getToken: () => this.#token(),
    });
    this.#client = client;
    client.on('error', ({ code, message, cause }) => {
      this.#ledger.count(code);
      if (FAULTS.includes(code))
        this.#ledger.find(`${this.#name} was told ${code}: ${message} ${cause ?? ''}`);
    });
    client.on('gap', ({ topic, since }) =>
      this.#ledger.find(`${this.#name} lost history of ${topic} after ${since}`),
    );
    if (this.room) this.#hearRoom();
    await new Promise((resolve) => client.on('welcome', resolve));
    await Promise.all([
      ...this.#topics.map((topic) => this.#hear(topic)),
      this.#hear(BROADCAST),
      this.isUser && client.inbox.list(),
    ]);
  }

  get connected() {
    return this.client.state.status === 'connected';
  }

  get streams() {
    const { state } = this.client;
    return state.status === 'connected' && state.transport === 'stream';
  }

  /** Publishes one message, to a topic, the own room or everybody. */
  publish() {
    const n = this.#published++;
    const from = this.#index;
    const pad = 'x'.repeat(Math.floor(this.#random() ** 8 * 20_000));
    const dice = this.#random();
    let topic = /** @type {string} */ (TOPICS[Math.floor(this.#random() * TOPICS.length)]);
    let promise;
    if (dice < 0.01) {
      topic = BROADCAST;
      promise = this.client.broadcast({ from, n, topic, pad });
    } else if (dice < 0.3 && this.room) {
      topic = `room ${this.room}`;
      promise = this.#rooms.publish('said', { data: { from, n, topic, pad } });
    } else {
      promise = this.client.publish(topic, { from, n, topic, pad });
    }
    void this.#ledger.follow(numberOf(from, n), promise);
  }

  /** Marks something in the inbox. */
  async mark() {
    const { inbox } = this.client;
    const { items } = inbox;
    const item = items[Math.floor(this.#random() * items.length)];
    const dice = this.#random();
    try {
      if (dice < 0.1) await inbox.markRead('all', this.#random() < 0.7);
      else if (item && dice < 0.6) await inbox.markRead(item.id, this.#random() < 0.7);
      else if (item) await inbox.acknowledge(item.id, this.#random() < 0.9);
    } catch (error) {
      const { code } = /** @type {{ code?: string }} */ (error);
      this.#ledger.count(`inbox ${code}`);
      if (code === undefined || FAULTS.includes(code))
        this.#ledger.find(`${this.#name} could not mark: ${error}`);
    }
  }

  /** Ends the token in use: the next one is another. */
  async revoke() {
    await this.#installation.call('POST', '/v1/revocations', { tokenId: this.#tokenId });
  }

  /** Whether the inbox says what the server says. */
  async agrees() {
    if (!this.isUser) return true;
    const { items, unreadCount, version, nextCursor } = this.client.inbox;
    const page = await this.#installation.call('GET', '/v1/notifications?limit=100', undefined, {
      sub: this.sub,
    });
    const listed = nextCursor === null ? page.items : page.items.slice(0, items.length);
    return (
      unreadCount === page.unread_count &&
      version === page.version &&
      isDeepStrictEqual(items.slice(0, 100), listed.slice(0, items.length)) &&
      (nextCursor !== null || items.length >= listed.length)
    );
  }

  /** @returns {string} how it stands */
  get text() {
    const { items, unreadCount, version } = this.client.inbox;
    const inbox = this.isUser ? `, says ${unreadCount} unread of ${items.length} at version ${version}` : '';
    return `${this.#name} is ${JSON.stringify(this.client.state)}${inbox}`;
  }

  /** Ends the client, and resolves with how many connections it has left open. */
  async end() {
    this.#rooms.close();
    const deadline = Date.now() + 10_000;
    while (this.link.connections > 0 && Date.now() < deadline)
      await new Promise((done) => setTimeout(done, 50));
    const left = this.link.connections;
    await this.link.close();
    return left;
  }

  get #name() {
    return `client ${this.#index}`;
  }

  get #topics() {
    if (!this.isUser) return [PATTERN];
    return [0, 1].map((i) => /** @type {string} */ (TOPICS[(this.#index + i) % TOPICS.length]));
  }

  /** @param {string} topic */
  #hear(topic) {
    const wants =
      topic === PATTERN
        ? (/** @type {string} */ of) => TOPICS.includes(of)
        : (/** @type {string} */ of) => of === topic;
    const heard = this.#ledger.listener(`${this.#name} on ${topic}`, wants);
    return this.client.subscribe(topic, (message, { position }) => heard.hear(message, position), {
      onError: ({ code, message }) => {
        if (code !== 'closed') this.#ledger.find(`${this.#name} lost ${topic}: ${code} ${message}`);
      },
    }).ready;
  }

  #hearRoom() {
    const heard = this.#ledger.listener(
      `${this.#name} in its room`,
      (topic) => topic === `room ${this.room}`,
    );
    this.#rooms.subscribe('said', (message) => heard.hear(message));
  }

  #token() {
    this.#tokenId = randomUUID();
    const life = SHORTEST_TOKEN + this.#random() * (LONGEST_TOKEN - SHORTEST_TOKEN);
    return this.#installation.token({
      sub: this.sub,
      jti: this.#tokenId,
      exp: Math.ceil(Date.now() / 1_000 + life),
      ...(this.isUser
        ? { room: { event_id: `event-${this.room}`, session_id: /** @type {string} */ (this.room) } }
        : { role: 'service' }),
    });
  }
}

/** A service of the platform: publishes over NATS, and notifies users. */
export class Service {
  #pubsub;
  #ledger;
  #installation;
  #random;
  #index;
  #published = 0;
  /** @type {Set<Promise<unknown>>} */
  #underWay = new Set();

  /**
   * @param {number} index as a sender
   * @param {{ bus: any, ledger: Ledger, installation: Installation, random: () => number }} world
   */
  constructor(index, { bus, ledger, installation, random }) {
    this.#index = index;
    this.#ledger = ledger;
    this.#installation = installation;
    this.#random = random;
    this.#pubsub = bus.connectPubSub({ servers: installation.natsUrl, audience: 'chaos', source: 'chaos' });
  }

  publish() {
    const n = this.#published++;
    const topic = /** @type {string} */ (TOPICS[Math.floor(this.#random() * TOPICS.length)]);
    const id = randomUUID();
    const publish = () => this.#pubsub.global.topic(topic).publish({ from: this.#index, n, topic }, { id });
    this.#follow(this.#ledger.follow(numberOf(this.#index, n), repeated(publish)));
  }

  /** Notifies a user, invites one, or takes an invitation back. */
  notify() {
    const target = `user-${Math.floor(this.#random() * USERS)}`;
    const dice = this.#random();
    if (dice < 0.7) {
      this.#follow(
        this.#installation.call('POST', '/v1/notifications', {
          title: 'Chaos',
          action: 'came',
          object: randomUUID(),
          link: 'https://chaos.example',
          level: 'info',
          target: [{ objectType: 'user', id: target }],
        }),
      );
      return;
    }
    const topic = `community:membership:${dice < 0.85 ? 'invite' : 'invitation:cancel'}`;
    const id = randomUUID();
    const pair = { author: 'ann', target, community: `community-${Math.floor(this.#random() * 3)}` };
    this.#follow(repeated(() => this.#pubsub.local.topic(topic).publish(pair, { id })));
  }

  /** Resolves once all is accepted. */
  async end() {
    await Promise.all(this.#underWay);
    await this.#pubsub.close();
  }

  /** @param {Promise<unknown>} promise */
  #follow(promise) {
    const followed = promise
      .catch((error) => this.#ledger.find(`the service failed: ${error}`))
      .finally(() => this.#underWay.delete(followed));
    this.#underWay.add(followed);
  }
}

/**
 * Under one id, until it is accepted.
 * @param {() => Promise<unknown>} publish
 */
async function repeated(publish) {
  for (const deadline = Date.now() + 100_000; ; ) {
    try {
      return await publish();
    } catch (error) {
      const { code } = /** @type {{ code?: string }} */ (error);
      if (code !== 'unavailable' || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}
