/** What was published, what is stored and what was heard, and where they do not agree. */
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { AUDIENCE } from './installation.mjs';

/** A message is known by a number: who sent it, and its number among the sender's. */
const NUMBERS = 1e7;

/** @param {number} from @param {number} n */
export const numberOf = (from, n) => from * NUMBERS + n;

/** @param {number} number */
const named = (number) => `message ${number % NUMBERS} of ${Math.floor(number / NUMBERS)}`;

/**
 * @typedef {'waiting' | 'accepted' | 'unsent' | 'unconfirmed' | 'refused'} Outcome
 * @typedef {{ topic: string, number: number, sequence: number }} Stored
 */

export class Ledger {
  /** Faults that were found. @type {string[]} */
  findings = [];
  /** @type {Map<number, Outcome>} */
  #published = new Map();
  /** @type {Heard[]} */
  #heard = [];
  delivered = 0;
  waiting = 0;
  /** @type {Record<string, number>} */
  errors = {};
  #began = performance.now();

  get published() {
    return this.#published.size;
  }

  /** @param {string} what */
  find(what) {
    const seconds = ((performance.now() - this.#began) / 1_000).toFixed(1);
    this.findings.push(`at ${seconds} s: ${what}`);
    if (this.findings.length <= 20) console.log(`  ✗ ${this.findings.at(-1)}`);
  }

  /** Notes an error by its code. @param {string} code */
  count(code) {
    this.errors[code] = (this.errors[code] ?? 0) + 1;
  }

  /**
   * Follows a publish to its end.
   * @param {number} number
   * @param {Promise<unknown>} promise
   */
  async follow(number, promise) {
    this.#published.set(number, 'waiting');
    this.waiting += 1;
    try {
      await promise;
      this.#published.set(number, 'accepted');
    } catch (error) {
      const code = /** @type {{ code?: string }} */ (error).code;
      if (code === undefined) this.find(`${named(number)} failed without a code: ${error}`);
      const outcome = code === 'unsent' || code === 'unconfirmed' ? code : 'refused';
      this.#published.set(number, outcome);
      this.count(`publish ${code}`);
    }
    this.waiting -= 1;
  }

  /**
   * What one handler hears.
   * @param {string} who
   * @param {(topic: string) => boolean} wants
   */
  listener(who, wants) {
    const heard = new Heard(who, wants, this);
    this.#heard.push(heard);
    return heard;
  }

  /**
   * Everything of the audience that is stored, in its order.
   * @param {string} natsUrl
   * @returns {Promise<Stored[]>}
   */
  async stored(natsUrl) {
    const nc = await connect({ servers: natsUrl });
    try {
      const name = 'PH_GLOBAL';
      const filter_subjects = `ph.${AUDIENCE}.global.-.>`;
      const { state } = await (await jetstreamManager(nc)).streams.info(name);
      const consumer = await jetstream(nc).consumers.get(name, { filter_subjects });
      /** @type {Stored[]} */
      const stored = [];
      if ((await consumer.info()).num_pending === 0) return stored;
      for await (const message of await consumer.consume()) {
        const { from, n, topic } = /** @type {any} */ (message.json());
        if (from !== undefined) stored.push({ topic, number: numberOf(from, n), sequence: message.seq });
        if (message.info.pending === 0 || message.seq >= state.last_seq) break;
      }
      return stored;
    } finally {
      await nc.close();
    }
  }

  /**
   * Whether everybody has heard all of it.
   * @param {Stored[]} stored
   */
  complete(stored) {
    return this.#heard.every((heard) => heard.missing(stored) === 0);
  }

  /**
   * Holds everything against what is stored.
   * @param {Stored[]} stored
   */
  check(stored) {
    /** @type {Map<number, number>} */
    const times = new Map();
    for (const { number } of stored) times.set(number, (times.get(number) ?? 0) + 1);
    for (const [number, outcome] of this.#published) {
      const count = times.get(number) ?? 0;
      if (outcome === 'waiting') this.find(`${named(number)} was never settled`);
      if (count > 1) this.find(`${named(number)} is stored ${count} times`);
      if (outcome === 'accepted' && count === 0) this.find(`${named(number)} was accepted and is not stored`);
      if ((outcome === 'unsent' || outcome === 'refused') && count > 0) {
        this.find(`${named(number)} was ${outcome} and is stored`);
      }
    }
    for (const heard of this.#heard) heard.check(stored);
  }
}

/** What one handler heard: messages in the order of their topics, each once. */
export class Heard {
  /** @type {Map<string, number[]>} */
  #topics = new Map();
  /** @type {Map<string, number>} */
  #last = new Map();
  #who;
  #wants;
  #ledger;

  /**
   * @param {string} who
   * @param {(topic: string) => boolean} wants
   * @param {Ledger} ledger
   */
  constructor(who, wants, ledger) {
    this.#who = who;
    this.#wants = wants;
    this.#ledger = ledger;
  }

  /**
   * @param {{ from: number, n: number, topic: string }} message
   * @param {string} [position] where it is known: has to be beyond the topic's last
   */
  hear({ from, n, topic }, position) {
    this.#ledger.delivered += 1;
    const number = numberOf(from, n);
    if (!this.#wants(topic)) this.#ledger.find(`${this.#who} heard ${named(number)} of ${topic}`);
    const numbers = this.#topics.get(topic);
    if (numbers) numbers.push(number);
    else this.#topics.set(topic, [number]);
    if (position === undefined) return;
    const sequence = Number(position.split('-')[1]);
    const last = this.#last.get(topic) ?? 0;
    if (sequence <= last) {
      const how = sequence === last ? 'again' : `after ${last}`;
      this.#ledger.find(`${this.#who} heard ${named(number)} at ${sequence} of ${topic} ${how}`);
    }
    this.#last.set(topic, sequence);
  }

  /** @param {Stored[]} stored */
  missing(stored) {
    let heard = 0;
    for (const numbers of this.#topics.values()) heard += numbers.length;
    return Math.max(0, stored.filter(({ topic }) => this.#wants(topic)).length - heard);
  }

  /** @param {Stored[]} stored */
  check(stored) {
    /** @type {Map<string, Stored[]>} */
    const wanted = new Map();
    for (const event of stored) {
      if (!this.#wants(event.topic)) continue;
      const events = wanted.get(event.topic);
      if (events) events.push(event);
      else wanted.set(event.topic, [event]);
    }
    for (const [topic, events] of wanted) {
      const heard = this.#topics.get(topic) ?? [];
      if (heard.length === events.length && events.every(({ number }, i) => heard[i] === number)) continue;
      const had = new Set(heard);
      const missing = events.filter(({ number }) => !had.has(number)).map(({ sequence }) => sequence);
      this.#ledger.find(
        missing.length > 0
          ? `${this.#who} misses ${missing.length} of ${events.length} of ${topic}: ${missing.slice(0, 10)}`
          : `${this.#who} heard ${topic} in another order, or more than once`,
      );
    }
  }
}
