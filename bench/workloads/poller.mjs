/** One client that polls many busy channels, a message at a time, each poll at the other of two gateways. */
import { setTimeout as sleep } from 'node:timers/promises';
import { built } from '../../tools/checkout.mjs';
import { startPosthorn } from '../contenders/posthorn.mjs';
import { cpuSeconds } from '../proc.mjs';
import { Poller } from '../waiters.mjs';

const CHANNELS = 50;
const RATE = 1_000;
/** Of the seconds that a run is to measure: the default of six makes thirty. */
const LONGER = 5;
const MS_PER_POLL = 'ms/poll';
const CPU_PER_POLL = 'gateway CPU ms/poll';
const PAGES = 'stream reads/1,000 polls';

/** @type {import('../workload.mjs').Workload<import('../contenders/posthorn.mjs').Posthorn>} */
export const poller = {
  name: 'poller',
  title: `one client polls ${CHANNELS} channels with ${RATE.toLocaleString('en')} messages each second, at two gateways in turn`,
  sockets: 0,
  contenders: { posthorn: (place) => startPosthorn(place, { gateways: 2 }) },
  columns: [
    { name: MS_PER_POLL, digits: 2 },
    { name: CPU_PER_POLL, digits: 2 },
    { name: PAGES, digits: 1 },
  ],
  wants: [],
  run: async (posthorn, _generator, { duration }) => {
    const channels = Array.from({ length: CHANNELS }, (_, index) => `busy/${index}`);
    const client = new Poller(posthorn, await posthorn.token('poller'), channels);
    const pids = posthorn.gateways.map(({ pid }) => pid ?? 0);
    const used = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const count = Math.round(duration * LONGER * RATE);
    const publishing = publishAll(posthorn, channels, count);
    const before = used();
    const began = performance.now();
    /** @type {Map<string, number>} */
    const last = new Map();
    const faults = [];
    for (let received = 0; received < count; received++) {
      const { channel, message, recovered } = await client.poll();
      if (!message || recovered === false) {
        faults.push(`after ${received} of ${count}: ${message ? 'not recovered' : 'nothing'}`);
        break;
      }
      const expected = (last.get(channel) ?? 0) + 1;
      if (message.n !== expected) faults.push(`${channel}: ${message.n} instead of ${expected}`);
      last.set(channel, message.n);
    }
    const seconds = (performance.now() - began) / 1_000;
    const cpu = used() - before;
    await publishing;
    client.close();
    const pages = await posthorn.sum('posthorn_poll_pages_total');
    return {
      faults: faults.slice(0, 5),
      values: {
        [MS_PER_POLL]: (seconds / count) * 1_000,
        [CPU_PER_POLL]: (cpu / count) * 1_000,
        [PAGES]: (pages / count) * 1_000,
      },
    };
  },
};

/**
 * @param {import('../contenders/posthorn.mjs').Posthorn} posthorn
 * @param {readonly string[]} channels
 * @param {number} count
 */
async function publishAll(posthorn, channels, count) {
  /** @type {typeof import('../../libs/bus/src/index.js')} */
  const { connectPubSub } = await built('libs/bus/src/index.js');
  const servers = posthorn.nats?.url ?? '';
  const pubsub = connectPubSub({ servers, audience: posthorn.audience, source: 'bench' });
  const began = performance.now();
  for (let published = 0; published < count; ) {
    const round = Math.floor(published / channels.length) + 1;
    // In rounds over all channels, so that a channel's numbers go out in order.
    await Promise.all(channels.map((channel) => pubsub.global.topic(channel).publish({ n: round })));
    published += channels.length;
    await sleep(Math.max(0, began + (published / RATE) * 1_000 - performance.now()));
  }
  await pubsub.close();
}
