/** Breaks an installation under load, and holds what clients saw against what they are promised. */
import { noWaits, Tally } from './tally.mjs';
import { Traffic } from './traffic.mjs';

/** How many seconds of load there are between two faults, so that there are always events under way. */
const BETWEEN = 1.5;
const STREAM = 'PH_GLOBAL';

/**
 * @typedef {import('./installation.mjs').Installation} Installation
 *
 * @typedef {object} Figures
 * @property {number} rounds
 * @property {number} seconds how long there was load
 * @property {{ acknowledged: number, stored: number, lost: number, doubled: number, misplaced: number }} events
 * @property {{ events: number, lost: number, doubled: number }} heard by all handlers together
 * @property {{ events: number, redelivered: number, lost: number }} consumed by durable consumers, each at least once
 * @property {{ expected: number, rows: number, lost: number, doubled: number, wrongCounts: number }} inboxes
 * @property {{ sent: number, unavailable: number }} requests
 * @property {Phase} leader figures of the kills
 * @property {Phase} rolling figures of the restarts
 * @property {number} found how many things did not hold
 * @property {string[]} findings which
 *
 * @typedef {object} Phase
 * @property {number} times
 * @property {number} unavailable requests that were asked to come again
 * @property {number} refused publishes over NATS that were told `unavailable`, and tried again
 * @property {import('./tally.mjs').Waits} longest waits
 * @property {number} slowest what took longest: an election, or the end of a process, in milliseconds
 */

/**
 * @param {object} options
 * @param {Installation} options.installation
 * @param {string} options.secret that signs tokens
 * @param {number} options.rate of all publishers together, in events per second, at most
 * @param {number} options.duration milliseconds; there is one round at least
 * @param {(line: string) => void} options.tell what happens, as it happens
 * @param {(action: () => Promise<unknown>) => void} options.atEnd takes what has to be done at the end, however it comes
 * @returns {Promise<Figures>}
 */
export async function check({ installation, secret, rate, duration, tell, atEnd }) {
  const tally = new Tally();
  const traffic = new Traffic(installation, tally, { secret, rate });
  atEnd(() => traffic.close());
  await traffic.start();
  await traffic.more(BETWEEN);
  traffic.takeLeft();
  const leader = phase();
  const rolling = phase();
  const began = performance.now();
  let rounds = 0;
  do {
    rounds += 1;
    await during(leader, () => killLeader(installation, tally, traffic, leader, tell));
    await during(rolling, () => restartAll(installation, tally, traffic, rolling, tell));
    if (tally.found > 0) tell(`${tally.found} findings, the last: ${tally.findings.at(-1)}`);
  } while (performance.now() - began < duration);
  const seconds = Math.round((performance.now() - began) / 1_000);
  const judged = await traffic.judge();
  const { found, findings, requests } = tally;
  return { rounds, seconds, ...judged, requests, leader, rolling, found, findings };

  /**
   * @param {Phase} phase
   * @param {() => Promise<void>} action
   */
  async function during(phase, action) {
    const before = { unavailable: tally.requests.unavailable, refused: tally.refused };
    tally.longest = noWaits();
    await action();
    phase.times += 1;
    phase.unavailable += tally.requests.unavailable - before.unavailable;
    phase.refused += tally.refused - before.refused;
    for (const kind of /** @type {const} */ (['publish', 'delivery', 'call'])) {
      if (tally.longest[kind].ms > phase.longest[kind].ms) phase.longest[kind] = tally.longest[kind];
    }
  }
}

/** @returns {Phase} */
function phase() {
  return {
    times: 0,
    unavailable: 0,
    refused: 0,
    longest: noWaits(),
    slowest: 0,
  };
}

/**
 * kill -9 of the server that leads the stream of global events, and its return.
 * @param {Installation} installation
 * @param {Tally} tally
 * @param {Traffic} traffic
 * @param {Phase} figures
 * @param {(line: string) => void} tell
 */
async function killLeader(installation, tally, traffic, figures, tell) {
  const leader = await installation.leaderOf(STREAM);
  const began = performance.now();
  await leader.kill();
  const next = await installation.leaderOf(STREAM);
  const ms = Math.round(performance.now() - began);
  figures.slowest = Math.max(figures.slowest, ms);
  await traffic.more(BETWEEN);
  tell(`kill -9 of ${leader.name}, which led ${STREAM}: ${next.name} leads it ${seconds(ms)} later`);
  await installation.restartNats(leader);
  await traffic.more(BETWEEN);
  for (const name of traffic.takeLeft()) tally.find(`${name} was disconnected while ${leader.name} was away`);
}

/**
 * @param {Installation} installation
 * @param {Tally} tally
 * @param {Traffic} traffic
 * @param {Phase} figures
 * @param {(line: string) => void} tell
 */
async function restartAll(installation, tally, traffic, figures, tell) {
  let count = 0;
  let slowest = 0;
  await installation.rollingRestart((app, { code, signal, ms }) => {
    count += 1;
    slowest = Math.max(slowest, Math.round(ms));
    if (code !== 0) tally.find(`${installation.nameOf(app)} ended with ${signal ?? `code ${code}`}`);
  });
  figures.slowest = Math.max(figures.slowest, slowest);
  tell(`${count} processes restarted one after the other; the slowest took ${seconds(slowest)} to end`);
  await traffic.more(BETWEEN);
  traffic.takeLeft();
}

/** @param {number} ms */
function seconds(ms) {
  return `${(ms / 1_000).toFixed(1)} s`;
}
