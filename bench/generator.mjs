/**
 * The load generator: a process of its own that holds the sockets, publishes, counts what arrives, and answers the
 * commands of `generator-process.mjs`. One process holds both ends, so that latencies are read off one clock.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { answerCommands } from './commands.mjs';
import { openConnection } from './connection.mjs';
import { Ledger, payloadTemplate, publisherOf, sequenceOf } from './ledger.mjs';
import { cpuSeconds, machineCpuSeconds } from './proc.mjs';
import { PLACE, Publisher } from './publisher.mjs';

/** Sockets that are being opened at one time. */
const OPENING = 100;
/** Reads after which publishes that have become due go out, at the latest. */
const READS_BETWEEN_PUBLISHES = 256;
const TICK_MS = 100;
/** How long a delivery may take. */
const STALL_MS = 5_000;
/** A double may come a little later than what it doubles. */
const DOUBLES_MS = 200;
/** Send times that are kept for each publisher and topic. */
const RING = 4_096;

/**
 * @typedef {import('./connection.mjs').Connection} Connection
 * @typedef {import('./connection.mjs').Target} Target
 */

/**
 * @typedef {object} Opening
 * @property {Target} target
 * @property {number} sockets that subscribe, each to one topic
 * @property {number} topics
 * @property {number} publishers sockets that publish to all topics
 * @property {number} size bytes of a message
 * @property {boolean} [acknowledged] the load's window counts acknowledged publishes, not deliveries
 */

/**
 * @typedef {{ window: number } | { rate: number }} Pace so many outstanding messages, or so many in a second
 */

/** One client that listens to one topic, through however many connections. */
class Subscriber {
  /** @type {Connection | undefined} */
  connection;
  /** Messages that have to be here before this client is up to date again. @type {number | undefined} */
  owed;

  /**
   * @param {Load} load
   * @param {number} topic
   * @param {number} publishers
   */
  constructor(load, topic, publishers) {
    this.load = load;
    this.topic = topic;
    this.ledger = new Ledger(publishers);
  }

  /**
   * @param {Target} target
   * @param {{ follows?: boolean, since?: string }} [options]
   */
  async connect(target, { follows = false, since } = {}) {
    this.connection = openConnection(target, this);
    this.connection.follows = follows;
    await this.connection.answered();
    await this.connection.subscribe(topicName(this.topic), since);
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} end
   */
  message(bytes, end) {
    const publisher = publisherOf(bytes, end);
    const sequence = sequenceOf(bytes, end);
    if (this.ledger.take(publisher, sequence)) this.load.delivered(this, publisher, sequence);
  }

  acknowledged() {}

  read() {
    this.load.read();
  }

  /** @param {string} why */
  closed(why) {
    this.load.lost(this, why);
  }

  /** @param {string} why */
  refused(why) {
    this.load.fail(why);
  }
}

/** Everything that one run opens and counts. */
class Load {
  #opening;
  /** @type {Subscriber[]} */
  #subscribers = [];
  /** @type {Publisher[]} */
  #publishers = [];
  /** @type {Connection[]} */
  #publisherConnections = [];
  /** The acknowledgements of each publisher. @type {Ledger} */
  #acknowledgements;
  /** Who is to hear a message. */
  #fanOut;
  #published = 0;
  /** Deliveries, or acknowledgements where these are counted. */
  #received = 0;
  #expected = 0;
  #lost = 0;
  /** @type {Set<string>} */
  #failures = new Set();
  /** @type {Pace | undefined} */
  #pace;
  #paceSince = 0;
  #pacePublished = 0;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  #scheduled = false;
  #reads = 0;
  #lastDelivery = 0;
  /** When each message was published, where latencies are wanted. @type {Float64Array | undefined} */
  #sentAt;
  /** Milliseconds. @type {number[]} */
  #latencies = [];
  #now = 0;
  /** @type {{ target: Target, withinMs: number, at: number } | undefined} */
  #failover;
  /** Milliseconds from the failover until each client that lost its connection was up to date. @type {number[]} */
  #caughtUp = [];

  /** @param {Opening} opening */
  constructor(opening) {
    const { sockets, topics, publishers } = opening;
    this.#opening = opening;
    this.#fanOut = opening.acknowledged ? 1 : sockets / topics;
    this.#acknowledgements = new Ledger(publishers);
    this.#subscribers = Array.from(
      { length: sockets },
      (_, index) => new Subscriber(this, index % topics, publishers),
    );
  }

  /** @param {{ publisherTarget?: Target, follows?: boolean }} [options] */
  async open({ publisherTarget, follows } = {}) {
    const { target, publishers } = this.#opening;
    const waiting = this.#subscribers.values();
    const opener = async () => {
      for (const subscriber of waiting) await subscriber.connect(target, { follows });
    };
    await Promise.all(Array.from({ length: OPENING }, opener));
    for (let index = 0; index < publishers; index++)
      await this.#addPublisher(publisherTarget ?? target, index);
  }

  /**
   * Publishes from now on.
   * @param {Pace & { latencies?: boolean }} pace
   */
  start(pace) {
    this.#pace = pace;
    this.#paceSince = this.#lastDelivery = performance.now();
    this.#pacePublished = this.#published;
    if (pace.latencies)
      this.#sentAt = new Float64Array(this.#publishers.length * this.#opening.topics * RING);
    this.#timer = setInterval(
      () => this.#publishDue(),
      'rate' in pace ? Math.min(TICK_MS, 1_000 / pace.rate) : TICK_MS,
    );
    this.#publishDue();
  }

  stop() {
    this.#pace = undefined;
    clearInterval(this.#timer);
  }

  /** Publishes so many at once. @param {number} count */
  publish(count) {
    for (let index = 0; index < count; index++) this.#publishNext();
    for (const publisher of this.#publishers) publisher.flush();
  }

  /**
   * What was done so far and what it cost, and the latencies since the last mark.
   * @param {number[]} pids
   */
  mark(pids) {
    const latencies = quantiles(this.#latencies);
    this.#latencies = [];
    return {
      at: performance.now() / 1_000,
      published: this.#published,
      received: this.#received,
      reads: this.#reads,
      latencies,
      cpu: Object.fromEntries(pids.map((pid) => [pid, cpuSeconds(pid)])),
      ownCpu: cpuSeconds(process.pid),
      machineCpu: machineCpuSeconds(),
    };
  }

  /**
   * Ends the load and waits for what is outstanding; then every client's ledger is read.
   * @param {number} stallMs so long without a delivery, and what is outstanding is lost
   */
  async finish(stallMs) {
    this.stop();
    this.#lastDelivery = performance.now();
    while (this.#received < this.#expected && performance.now() - this.#lastDelivery < stallMs)
      await sleep(10);
    await sleep(DOUBLES_MS);
    const totals = { published: this.#published, received: this.#received, missing: 0, doubled: 0, late: 0 };
    const ledgers = this.#opening.acknowledged ? [] : this.#subscribers;
    for (const { ledger, topic } of ledgers) this.#add(totals, ledger, (publisher) => publisher.sent(topic));
    if (this.#opening.acknowledged) {
      this.#add(totals, this.#acknowledgements, (publisher) => publisher.sent(0));
      // Acknowledgements have no order.
      totals.late = 0;
    }
    return { ...totals, lost: this.#lost, failures: [...this.#failures] };
  }

  /**
   * From now on, who loses its connection comes back elsewhere within so many milliseconds, with its last position.
   * @param {Target} target
   * @param {number} withinMs
   */
  failOver(target, withinMs) {
    this.#failover = { target, withinMs, at: performance.now() };
  }

  /** Resolves when so many clients that lost their connection are up to date, or after so many milliseconds. */
  async recovered(/** @type {number} */ withinMs) {
    const deadline = performance.now() + withinMs;
    while (this.#caughtUp.length < this.#subscribers.length && performance.now() < deadline) await sleep(20);
    return { clients: this.#caughtUp.length, lastMs: Math.max(0, ...this.#caughtUp) };
  }

  /**
   * @param {Subscriber} subscriber
   * @param {number} publisher
   * @param {number} sequence
   */
  delivered(subscriber, publisher, sequence) {
    this.#received++;
    if (this.#sentAt) {
      this.#latencies.push(
        this.#readAt() - (this.#sentAt[this.#ring(publisher, subscriber.topic, sequence)] ?? 0),
      );
    }
    if (subscriber.owed !== undefined) this.#checkOwed(subscriber);
  }

  /** Something was read: what became due goes out once everything that is readable now is read. */
  read() {
    this.#now = 0;
    this.#lastDelivery = performance.now();
    this.#reads++;
    if (!this.#pace || 'rate' in this.#pace) return;
    if (this.#reads % READS_BETWEEN_PUBLISHES === 0) this.#publishDue();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.#publishDue();
      });
    }
  }

  /**
   * @param {Subscriber} subscriber
   * @param {string} why
   */
  lost(subscriber, why) {
    if (!this.#failover) {
      this.#lost++;
      this.fail(why);
      return;
    }
    const { target, withinMs } = this.#failover;
    const since = subscriber.connection?.position;
    setTimeout(() => {
      subscriber
        .connect(target, { follows: true, since })
        .then(() => {
          subscriber.owed = this.#sentTo(subscriber.topic);
          this.#checkOwed(subscriber);
        })
        .catch((error) => this.fail(error.message));
    }, Math.random() * withinMs);
  }

  /** @param {string} why */
  fail(why) {
    this.#failures.add(why);
  }

  /** @param {Subscriber} subscriber */
  #checkOwed(subscriber) {
    if (!this.#failover || subscriber.ledger.received < (subscriber.owed ?? 0)) return;
    subscriber.owed = undefined;
    this.#caughtUp.push(performance.now() - this.#failover.at);
  }

  /**
   * @param {Target} target
   * @param {number} index
   */
  async #addPublisher(target, index) {
    const { topics, size, acknowledged } = this.#opening;
    const connection = openConnection(target, {
      message: () => {},
      acknowledged: (bytes, end) => {
        const publisher = publisherOf(bytes, end);
        if (this.#acknowledgements.take(publisher, sequenceOf(bytes, end))) this.#received++;
      },
      read: () => this.read(),
      closed: (why) => this.fail(`a publisher: ${why}`),
      refused: (why) => this.fail(why),
    });
    await connection.answered();
    const ref = acknowledged ? PLACE : undefined;
    const texts = Array.from({ length: topics }, (_, topic) =>
      connection.publishText(topicName(topic), payloadTemplate(size), ref),
    );
    this.#publishers.push(new Publisher(connection, index, texts));
    this.#publisherConnections.push(connection);
  }

  #publishDue() {
    const pace = this.#pace;
    if (!pace) return;
    if ('rate' in pace) {
      const due = ((performance.now() - this.#paceSince) / 1_000) * pace.rate;
      while (this.#published - this.#pacePublished < due) this.#publishNext();
    } else {
      const most = pace.window * this.#fanOut;
      while (this.#expected - this.#received + this.#fanOut <= most) this.#publishNext();
    }
    for (const publisher of this.#publishers) publisher.flush();
  }

  #publishNext() {
    const { topics, publishers } = this.#opening;
    const index = this.#published % publishers;
    const topic = Math.floor(this.#published / publishers) % topics;
    const sequence = this.#publishers[index]?.publish(topic) ?? 0;
    this.#published++;
    this.#expected += this.#fanOut;
    if (this.#sentAt) this.#sentAt[this.#ring(index, topic, sequence)] = performance.now();
  }

  /**
   * @param {number} publisher
   * @param {number} topic
   * @param {number} sequence
   */
  #ring(publisher, topic, sequence) {
    return (publisher * this.#opening.topics + topic) * RING + (sequence % RING);
  }

  /** One look at the clock for all that one read brought. */
  #readAt() {
    if (this.#now === 0) this.#now = performance.now();
    return this.#now;
  }

  /** @param {number} topic */
  #sentTo(topic) {
    return this.#publishers.reduce((sum, publisher) => sum + publisher.sent(topic), 0);
  }

  /**
   * @param {{ missing: number, doubled: number, late: number }} totals
   * @param {Ledger} ledger
   * @param {(publisher: Publisher) => number} sent
   */
  #add(totals, ledger, sent) {
    totals.missing += this.#publishers.reduce((sum, one, index) => sum + ledger.missing(index, sent(one)), 0);
    totals.doubled += ledger.doubled;
    totals.late += ledger.late;
  }
}

/** @param {number[]} latencies milliseconds */
function quantiles(latencies) {
  const sorted = Float64Array.from(latencies).sort();
  const quantile = (/** @type {number} */ q) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
  return { count: sorted.length, p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) };
}

/** @param {number} topic */
function topicName(topic) {
  return `bench/${String(topic).padStart(3, '0')}`;
}

/** @type {Load | undefined} */
let load;

function running() {
  if (!load) throw new Error('Nothing is open');
  return load;
}

/** What may be asked for. */
const commands = {
  /** @param {Opening & { publisherTarget?: Target, follows?: boolean }} opening */
  open: async ({ publisherTarget, follows, ...opening }) => {
    load = new Load(opening);
    await load.open({ publisherTarget, follows });
  },
  /** @param {Pace & { latencies?: boolean }} pace */
  start: async (pace) => running().start(pace),
  stop: async () => running().stop(),
  /** @param {{ count: number }} args */
  publish: async ({ count }) => running().publish(count),
  /** @param {{ pids: number[] }} args */
  mark: async ({ pids }) => running().mark(pids),
  /** @param {{ target: Target, withinMs: number }} args */
  failOver: async ({ target, withinMs }) => running().failOver(target, withinMs),
  /** @param {{ withinMs: number }} args */
  recovered: async ({ withinMs }) => running().recovered(withinMs),
  /** @param {{ stallMs?: number }} [args] */
  finish: async ({ stallMs = STALL_MS } = {}) => running().finish(stallMs),
};

/** @typedef {typeof commands} Commands */

answerCommands(commands);
