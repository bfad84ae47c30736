/** Durable publishes by one client, each acknowledged once JetStream has it. */
import { fileURLToPath } from 'node:url';
import { startPosthorn } from '../contenders/posthorn.mjs';
import { GeneratorProcess } from '../generator-process.mjs';
import { measure } from '../workload.mjs';

const SIZE = 128;
const WINDOW = 256;
const STORED = 'stored/s';
const BARE = 'bare jetstream';
const bareProgram = fileURLToPath(new URL('../bare-publisher.mjs', import.meta.url));

/** @type {import('../workload.mjs').Workload<import('../contenders/posthorn.mjs').Posthorn>} */
export const publish = {
  name: 'publish',
  title: 'one client stores 128-byte messages, 256 of them in flight',
  sockets: 1,
  // The streams, their server and everything beside it are the same for both; only the way in differs.
  contenders: { posthorn: startPosthorn, [BARE]: startPosthorn },
  columns: [{ name: STORED, digits: 0 }],
  wants: [
    {
      text: `${STORED}, posthorn over ${BARE}`,
      figure: (of) => of('posthorn', STORED) / of(BARE, STORED),
      atLeast: 0.5,
    },
  ],
  run: async (posthorn, generator, timing, contender) => {
    // The bare publisher copies its headers from this event.
    await posthorn.publish('bench/000', { pad: 'x'.repeat(SIZE) });
    const before = await posthorn.storedEvents();
    const publisher = contender === BARE ? new GeneratorProcess(bareProgram) : generator;
    try {
      const target = contender === BARE ? posthorn.natsTarget() : await posthorn.target();
      await publisher.ask('open', {
        target,
        sockets: 0,
        topics: 1,
        publishers: 1,
        size: SIZE,
        acknowledged: true,
      });
      const { totals, ...figures } = await measure(posthorn, publisher, { window: WINDOW }, timing);
      const stored = (await posthorn.storedEvents()) - before;
      if (stored !== totals.received)
        figures.faults.push(`acknowledged: ${totals.received}, stored: ${stored}`);
      return { ...figures, values: { [STORED]: figures.receivedPerSecond } };
    } finally {
      if (publisher !== generator) await publisher.end();
    }
  },
};
