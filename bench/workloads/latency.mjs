/** How long a message takes from the publisher's write to each client's read, while nothing is busy. */
import { contenders } from '../contender.mjs';
import { measure } from '../workload.mjs';

const SOCKETS = 1_000;
const RATE = 20;

/** @type {import('../workload.mjs').Workload<import('../contender.mjs').Server>} */
export const latency = {
  name: 'latency',
  title: '1,000 sockets on one topic, 20 messages each second, from publish to receive',
  sockets: SOCKETS,
  contenders,
  columns: [
    { name: 'p50 ms', digits: 2 },
    { name: 'p99 ms', digits: 2 },
  ],
  wants: ['p50 ms', 'p99 ms'].map((column) => ({
    text: `${column}, posthorn over plain loop`,
    figure: (of) => of('posthorn', column) / of('plain loop', column),
    atMost: 1.25,
  })),
  run: async (server, generator, timing) => {
    const target = await server.target();
    await generator.ask('open', { target, sockets: SOCKETS, topics: 1, publishers: 1, size: 128 });
    const { latencies, ...figures } = await measure(
      server,
      generator,
      { rate: RATE, latencies: true },
      timing,
    );
    return {
      ...figures,
      values: { 'p50 ms': latencies.p50 ?? Number.NaN, 'p99 ms': latencies.p99 ?? Number.NaN },
    };
  },
};
