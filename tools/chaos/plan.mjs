/** What happens in a run, and when: made from a seed, so that a run's script can be had again. */

/**
 * @typedef {'reset' | 'reset all' | 'stall' | 'half-open' | 'refuse' | 'slow' | 'no websockets' | 'stop gateway' | 'kill gateway' | 'restart NATS' | 'revoke token'} Fault
 * @typedef {{ at: number, fault: Fault, which: number, lasts: number, latency: number, rate: number }} Step `at`,
 *   `lasts` and `latency` in milliseconds; `which`: the client or gateway, to be taken modulo; `rate`: bytes in a second
 */

/** How often each comes in a deck, and for how long, in milliseconds. @type {Record<Fault, [number, number, number]>} */
const FAULTS = {
  reset: [4, 0, 0],
  'reset all': [1, 0, 0],
  stall: [3, 1_000, 8_000],
  'half-open': [2, 0, 0],
  refuse: [2, 500, 5_000],
  slow: [2, 3_000, 10_000],
  'no websockets': [2, 5_000, 20_000],
  'stop gateway': [2, 0, 2_000],
  'kill gateway': [2, 0, 2_000],
  'restart NATS': [1, 0, 1_000],
  'revoke token': [3, 0, 0],
};

const SHORTEST_PAUSE = 300;
const LONGEST_PAUSE = 4_000;

/**
 * Random numbers from 0 to below 1 (mulberry32).
 * @param {number} seed
 */
export function randomOf(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Faults are dealt as cards of a shuffled deck: a short run has each kind, too.
 * @param {number} seed
 * @param {number} duration milliseconds
 * @returns {Step[]}
 */
export function planOf(seed, duration) {
  const random = randomOf(seed);
  /** @param {number} from @param {number} to */
  const between = (from, to) => Math.round(from + random() * (to - from));
  /** @type {Fault[]} */
  let deck = [];
  const steps = [];
  for (let at = between(SHORTEST_PAUSE, LONGEST_PAUSE); at < duration; ) {
    if (deck.length === 0) deck = shuffled(random);
    const fault = /** @type {Fault} */ (deck.pop());
    const [, shortest, longest] = FAULTS[fault];
    steps.push({
      at,
      fault,
      which: between(0, 1_000_000),
      lasts: between(shortest, longest),
      latency: between(50, 400),
      rate: between(4, 64) * 1_024,
    });
    at += between(SHORTEST_PAUSE, LONGEST_PAUSE);
  }
  return steps;
}

/** @param {() => number} random */
function shuffled(random) {
  const deck = Object.entries(FAULTS).flatMap(([fault, [count]]) => Array(count).fill(fault));
  for (let i = deck.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [deck[i], deck[j]] = [deck[j], deck[i]];
  }
  return deck;
}
