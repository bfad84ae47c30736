/** What a check counts, and what it finds: acknowledged events against those that are stored, heard and written. */

/** How many findings are kept word for word. */
const KEPT = 50;

/**
 * @typedef {{ ms: number, who: string }} Wait
 * @typedef {{ publish: Wait, delivery: Wait, call: Wait }} Waits
 */

/** @returns {Waits} */
export function noWaits() {
  const none = { ms: 0, who: 'nobody' };
  return { publish: none, delivery: none, call: none };
}

export class Tally {
  /** What did not hold. @type {string[]} */
  findings = [];
  found = 0;
  /** Of every kind of request: how many were sent, and how many of them were asked to come again. */
  requests = { sent: 0, unavailable: 0 };
  /** Publishes over NATS that were told `unavailable`, and tried again. */
  refused = 0;
  /** Events that a durable consumer was given a second time. */
  redelivered = 0;
  /** Events that all handlers together have heard. */
  heard = 0;
  /** The longest wait of a publisher, of an event on its way to a handler, and of a call. */
  longest = noWaits();
  /** @type {Map<string, number>} */
  #acknowledged = new Map();
  /** @type {Handler[]} */
  #handlers = [];

  /** @param {string} what */
  find(what) {
    this.found += 1;
    if (this.findings.length < KEPT) this.findings.push(what);
  }

  /**
   * Notes a wait, where it is the longest.
   * @param {keyof Waits} kind
   * @param {number} ms
   * @param {string} who
   */
  waited(kind, ms, who) {
    if (ms > this.longest[kind].ms) this.longest[kind] = { ms: Math.round(ms), who };
  }

  /**
   * An event of a lane was acknowledged. Lanes publish one event after the other, from 0.
   * @param {string} lane
   * @param {number} n
   */
  acknowledge(lane, n) {
    this.#acknowledged.set(lane, n + 1);
  }

  get acknowledged() {
    return sum(this.#acknowledged.values());
  }

  /**
   * Somebody who hears every event of these lanes once, in order.
   * @param {string} who
   * @param {readonly string[]} lanes
   */
  handler(who, lanes) {
    const handler = new Handler(who, lanes, this);
    this.#handlers.push(handler);
    return handler;
  }

  /** Whether every handler has heard all that was acknowledged. */
  get complete() {
    return this.#handlers.every((handler) =>
      handler.lanes.every((lane) => handler.next(lane) >= (this.#acknowledged.get(lane) ?? 0)),
    );
  }

  /**
   * Holds what is stored against what was acknowledged.
   * @param {readonly { lane: string, n: number }[]} stored in the stream's order
   * @returns {{ lost: number, doubled: number, misplaced: number }}
   */
  judgeStored(stored) {
    const numbers = new Map(
      [...this.#acknowledged.keys()].map((lane) => [lane, /** @type {number[]} */ ([])]),
    );
    for (const { lane, n } of stored) numbers.get(lane)?.push(n);
    const total = { lost: 0, doubled: 0, misplaced: 0 };
    for (const [lane, all] of numbers) {
      const once = new Set(all);
      const count = /** @type {number} */ (this.#acknowledged.get(lane));
      let lost = 0;
      for (let n = 0; n < count; n++) if (!once.has(n)) lost += 1;
      const doubled = all.length - once.size;
      const misplaced = all.filter((n, i) => i > 0 && n < /** @type {number} */ (all[i - 1])).length;
      if (lost > 0) this.find(`${lane}: ${lost} of ${count} acknowledged events are not stored`);
      if (doubled > 0) this.find(`${lane}: ${doubled} events are stored more than once`);
      if (misplaced > 0) this.find(`${lane}: ${misplaced} events are stored after a later one`);
      total.lost += lost;
      total.doubled += doubled;
      total.misplaced += misplaced;
    }
    return total;
  }

  /** What handlers did not hear of what was acknowledged, heard more than once, or after a later event. */
  judgeHeard() {
    const total = { lost: 0, doubled: 0 };
    for (const handler of this.#handlers) {
      for (const lane of handler.lanes) {
        const missing = (this.#acknowledged.get(lane) ?? 0) - handler.next(lane);
        if (missing > 0) this.find(`${handler.who} misses the last ${missing} events of ${lane}`);
        total.lost += Math.max(0, missing);
      }
      total.lost += handler.lost;
      total.doubled += handler.doubled;
    }
    return total;
  }

  /**
   * Holds rows of inboxes against the events that make them.
   * @param {ReadonlySet<string>} expected `<event> <target>`
   * @param {readonly string[]} rows
   */
  judgeRows(expected, rows) {
    const once = new Set(rows);
    const lost = [...expected].filter((row) => !once.has(row)).length;
    const strange = [...once].filter((row) => !expected.has(row)).length;
    const doubled = rows.length - once.size;
    if (lost > 0) this.find(`${lost} of ${expected.size} notifications are in no inbox`);
    if (doubled > 0) this.find(`${doubled} notifications are in an inbox twice`);
    if (strange > 0) this.find(`${strange} notifications are of no event that was acknowledged`);
    return { lost, doubled };
  }
}

class Handler {
  lost = 0;
  doubled = 0;
  /** What comes next in each lane. @type {Map<string, number>} */
  #next;
  #tally;

  /**
   * @param {string} who
   * @param {readonly string[]} lanes
   * @param {Tally} tally
   */
  constructor(who, lanes, tally) {
    this.who = who;
    this.lanes = lanes;
    this.#next = new Map(lanes.map((lane) => [lane, 0]));
    this.#tally = tally;
  }

  /** @param {string} lane */
  next(lane) {
    return this.#next.get(lane) ?? 0;
  }

  /** @param {{ lane: string, n: number, at: number }} event */
  hear({ lane, n, at }) {
    const tally = this.#tally;
    const next = this.#next.get(lane);
    if (next === undefined) return tally.find(`${this.who} heard ${lane}, and did not ask for it`);
    tally.heard += 1;
    tally.waited('delivery', Date.now() - at, `${this.who} of ${lane}`);
    if (n < next) {
      this.doubled += 1;
      return tally.find(`${this.who} heard event ${n} of ${lane} again, or after ${next - 1}`);
    }
    if (n > next) {
      this.lost += n - next;
      tally.find(`${this.who} heard event ${n} of ${lane} after ${next - 1}`);
    }
    this.#next.set(lane, n + 1);
  }
}

/** @param {Iterable<number>} numbers */
function sum(numbers) {
  let total = 0;
  for (const number of numbers) total += number;
  return total;
}
