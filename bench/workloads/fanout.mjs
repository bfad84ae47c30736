/** Every message to many sockets, as fast as it goes with so many messages outstanding. */
import { contenders } from '../contender.mjs';
import { measure } from '../workload.mjs';

const SOCKETS = 1_000;
const SIZE = 128;
const WINDOW = 50;
const TOPICS = 100;

/** @typedef {import('../workload.mjs').Workload<import('../contender.mjs').Server>} FanOut */

const DELIVERIES = 'deliveries/s';
const COST = 'CPU s/million';

/**
 * @param {{ name: string, title: string, topics?: number, publishers?: number, window?: number, wants: FanOut['wants'] }} shape
 * @returns {FanOut}
 */
function fanOut({ topics = 1, publishers = 1, window = WINDOW, ...rest }) {
  return {
    ...rest,
    sockets: SOCKETS,
    contenders,
    columns: [
      { name: DELIVERIES, digits: 0 },
      { name: COST, digits: 2 },
    ],
    run: async (server, generator, timing) => {
      const target = await server.target();
      await generator.ask('open', { target, sockets: SOCKETS, topics, publishers, size: SIZE });
      const { receivedPerSecond, cpuPerMillion, ...figures } = await measure(
        server,
        generator,
        { window },
        timing,
      );
      return { ...figures, values: { [DELIVERIES]: receivedPerSecond, [COST]: cpuPerMillion } };
    },
  };
}

export const oneTopic = fanOut({
  name: 'fanout',
  title: '1,000 sockets on one topic, one publisher, 50 messages outstanding',
  wants: [
    {
      text: 'deliveries/s, posthorn over plain loop',
      figure: (of) => of('posthorn', DELIVERIES) / of('plain loop', DELIVERIES),
      atLeast: 15,
    },
    {
      text: 'deliveries/s, posthorn over nats listener',
      figure: (of) => of('posthorn', DELIVERIES) / of('nats listener', DELIVERIES),
      atLeast: 1,
    },
    {
      text: 'CPU for each delivery, posthorn over nats listener',
      figure: (of) => of('posthorn', COST) / of('nats listener', COST),
      atMost: 0.7,
    },
  ],
});

export const manyPublishers = fanOut({
  name: 'publishers',
  title: '1,000 sockets on one topic, 20 publishers, 50 messages outstanding',
  publishers: 20,
  wants: [
    {
      text: 'deliveries/s, posthorn over plain loop',
      figure: (of) => of('posthorn', DELIVERIES) / of('plain loop', DELIVERIES),
    },
  ],
});

export const manyTopics = fanOut({
  name: 'topics',
  title: '1,000 sockets on 100 topics, ten on each, one publisher, 50 messages outstanding',
  topics: TOPICS,
  wants: [
    {
      text: 'deliveries/s, posthorn over plain loop',
      figure: (of) => of('posthorn', DELIVERIES) / of('plain loop', DELIVERIES),
      atLeast: 1,
    },
  ],
});

export const manyBusyTopics = fanOut({
  name: 'busy-topics',
  title: '1,000 sockets on 100 topics, ten on each, one publisher, 50 messages outstanding on each topic',
  topics: TOPICS,
  window: WINDOW * TOPICS,
  wants: [
    {
      text: 'deliveries/s, posthorn over plain loop',
      figure: (of) => of('posthorn', DELIVERIES) / of('plain loop', DELIVERIES),
      atLeast: 1,
    },
  ],
});
