/** A gateway dies with its sockets, and they come back to another one with the position that each had reached. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startPosthorn } from '../contenders/posthorn.mjs';
import { faultsOf, meter } from '../workload.mjs';

const SOCKETS = 2_000;
const TOPICS = 100;
const RATE = 500;
const RETURN_WITHIN_MS = 5_000;
/** What takes longer than this counts as not caught up. */
const PATIENCE_MS = 30_000;
const CAUGHT_UP = 's from the kill until all are up to date';

/** @type {import('../workload.mjs').Workload<import('../contenders/posthorn.mjs').Posthorn>} */
export const storm = {
  name: 'storm',
  title: 'one of two gateways is killed with 2,000 sockets on 100 topics under 500 messages each second',
  sockets: SOCKETS,
  contenders: { posthorn: (place) => startPosthorn(place, { gateways: 2 }) },
  columns: [
    { name: CAUGHT_UP, digits: 2 },
    { name: 'resumed', digits: 0 },
  ],
  wants: [{ text: CAUGHT_UP, figure: (of) => of('posthorn', CAUGHT_UP), atMost: 10 }],
  run: async (posthorn, generator, { warmup, duration }) => {
    const [dying, survivor] = [0, 1];
    await generator.ask('open', {
      target: await posthorn.target(dying),
      publisherTarget: await posthorn.target(survivor),
      follows: true,
      sockets: SOCKETS,
      topics: TOPICS,
      publishers: 1,
      size: 128,
    });
    await generator.ask('start', { rate: RATE });
    await sleep(warmup * 1_000);
    const costs = await meter(posthorn, generator);
    await generator.ask('failOver', { target: await posthorn.target(survivor), withinMs: RETURN_WITHIN_MS });
    await posthorn.gateways[dying]?.kill();
    const { clients, lastMs } = await generator.ask('recovered', { withinMs: PATIENCE_MS });
    const { generatorCores, otherCores } = await costs();
    // Live again: what comes now must fit behind what was replayed.
    await sleep(duration * 1_000);
    const faults = faultsOf(await generator.ask('finish'));
    const complete = clients === SOCKETS;
    if (!complete) faults.push(`not up to date after ${PATIENCE_MS / 1_000} s: ${SOCKETS - clients}`);
    const values = { [CAUGHT_UP]: complete ? lastMs / 1_000 : Number.NaN, resumed: clients };
    return { faults, generatorCores, otherCores, values };
  },
};
