/** A backlog of community events, worked off by one worker into PostgreSQL and onto the bus. */
import { setTimeout as sleep } from 'node:timers/promises';
import { built } from '../../tools/checkout.mjs';
import { communityEvents } from '../community-events.mjs';
import { startNotifier, startOneByOne } from '../contenders/workers.mjs';
import { cpuSeconds, machineCpuSeconds, residentBytes } from '../proc.mjs';

/** Events for each second that a run is to take: the default of six seconds makes 200,000. */
const EVENTS_PER_SECOND_ASKED = 34_000;
const MOST_EVENTS = 200_000;
/** The control is several times slower, and its speed does not change with time. */
const SHARE_OF_CONTROL = 0.1;
const PATIENCE_MS = 600_000;
const LOOK_MS = 250;

const RATE = 'notifications/s';
const EVENTS = 'events/s';
const CPU = 'CPU s per million';
const MEMORY = 'MiB';
const GROWTH = 'MiB grown in the second half';

const ONE_BY_ONE = 'one by one';

/**
 * @typedef {import('../contenders/workers.mjs').Worker} Server
 * @type {import('../workload.mjs').Workload<Server>}
 */
export const notifications = {
  name: 'notifications',
  title: 'one worker turns a backlog of 200,000 community events into notifications',
  sockets: 0,
  contenders: {
    posthorn: startNotifier,
    [ONE_BY_ONE]: startOneByOne,
  },
  columns: [
    { name: RATE, digits: 0 },
    { name: EVENTS, digits: 0 },
    { name: CPU, digits: 0 },
    { name: MEMORY, digits: 0 },
    { name: GROWTH, digits: 1 },
  ],
  wants: [
    { text: RATE, figure: (of) => of('posthorn', RATE), atLeast: 3_000 },
    {
      text: `${RATE}, posthorn over ${ONE_BY_ONE}`,
      figure: (of) => of('posthorn', RATE) / of(ONE_BY_ONE, RATE),
    },
    { text: GROWTH, figure: (of) => of('posthorn', GROWTH), atMost: 20 },
  ],
  run: async (server, _generator, { duration }, contender) => {
    const all = Math.min(MOST_EVENTS, Math.round(duration * EVENTS_PER_SECOND_ASKED));
    const events = Math.round(contender === ONE_BY_ONE ? all * SHARE_OF_CONTROL : all);
    await server.prepareWorker();
    await publishAll(server, events);
    await server.resumeWorker();
    return { ...(await workOff(server, events)), faults: await server.checkWorker(events) };
  },
};

/**
 * Stores the events while no worker runs.
 * @param {Server} server
 * @param {number} count
 */
async function publishAll(server, count) {
  /** @type {typeof import('../../libs/bus/src/index.js')} */
  const { connectPubSub } = await built('libs/bus/src/index.js');
  const pubsub = connectPubSub({ servers: server.natsUrl, audience: server.audience, source: 'bench' });
  try {
    /** @type {Set<Promise<unknown>>} */
    const underWay = new Set();
    for (const { topic, payload } of communityEvents(count)) {
      const publish = pubsub.local.topic(topic).publish(payload);
      underWay.add(publish);
      void publish.finally(() => underWay.delete(publish));
      if (underWay.size >= 512) await Promise.race(underWay);
    }
    await Promise.all(underWay);
  } finally {
    await pubsub.close();
  }
}

/**
 * Watches the worker until it has handled everything.
 * @param {Server} server
 * @param {number} events
 */
async function workOff(server, events) {
  const { pid } = server.worker;
  const measured = { worker: pid, nats: server.nats?.pid ?? 0 };
  const began = performance.now();
  const cpu = Object.values(measured).map(cpuSeconds);
  const machine = machineCpuSeconds();
  const ownBefore = process.cpuUsage();
  const databaseBefore = server.databaseCpuSeconds();
  server.profile?.();
  /** @type {{ done: number, bytes: number }[]} */
  const looks = [];
  for (;;) {
    const done = events - (await server.backlog());
    looks.push({ done, bytes: residentBytes(pid) });
    if (done === events) break;
    if (performance.now() - began > PATIENCE_MS)
      throw new Error(`After ${PATIENCE_MS} ms: ${done} of ${events}`);
    await sleep(LOOK_MS);
  }
  server.profile?.();
  const seconds = (performance.now() - began) / 1_000;
  const used = Object.values(measured).map((one, i) => cpuSeconds(one) - (cpu[i] ?? 0));
  const database = server.databaseCpuSeconds() - databaseBefore;
  const own = process.cpuUsage(ownBefore);
  const ownSeconds = (own.user + own.system) / 1e6;
  const written = await server.written();
  const spent = used.reduce((sum, one) => sum + one, 0) + database;
  return {
    values: {
      [RATE]: written / seconds,
      [EVENTS]: events / seconds,
      [CPU]: (spent / written) * 1e6,
      [MEMORY]: Math.max(...looks.map(({ bytes }) => bytes)) / 2 ** 20,
      [GROWTH]: growth(looks, events),
    },
    cores: {
      worker: (used[0] ?? 0) / seconds,
      nats: (used[1] ?? 0) / seconds,
      postgres: database / seconds,
    },
    otherCores: Math.max(0, machineCpuSeconds() - machine - spent - ownSeconds) / seconds,
  };
}

/**
 * What the third and fourth quarter of the events have added to the worker's memory, by the means of each.
 * @param {{ done: number, bytes: number }[]} looks
 * @param {number} events
 */
function growth(looks, events) {
  const mean = (/** @type {number} */ from, /** @type {number} */ to) => {
    const some = looks.filter(({ done }) => done >= from * events && done < to * events);
    return some.reduce((sum, { bytes }) => sum + bytes, 0) / some.length;
  };
  return (mean(0.75, 1) - mean(0.25, 0.5)) / 2 ** 20;
}
