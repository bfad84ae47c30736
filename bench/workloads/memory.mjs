/** What a socket costs that is subscribed and silent. */
import { setTimeout as sleep } from 'node:timers/promises';
import { contenders } from '../contender.mjs';
import { residentBytes } from '../proc.mjs';
import { faultsOf } from '../workload.mjs';

const SOCKETS = 5_000;
const PROOFS = 3;
const PER_SOCKET = 'KiB/socket';

/** @type {import('../workload.mjs').Workload<import('../contender.mjs').Server>} */
export const memory = {
  name: 'memory',
  title: '5,000 sockets on one topic, idle: resident memory of the process that holds them',
  sockets: SOCKETS,
  contenders,
  columns: [
    { name: PER_SOCKET, digits: 2 },
    { name: 'MiB before', digits: 1 },
    { name: 'MiB after', digits: 1 },
  ],
  wants: [
    {
      text: 'KiB for each socket, posthorn less plain loop',
      figure: (of) => of('posthorn', PER_SOCKET) - of('plain loop', PER_SOCKET),
      atMost: 4,
    },
  ],
  run: async (server, generator, { settle }) => {
    const pid = server.pids.gateway ?? server.pids.server ?? 0;
    const target = await server.target();
    await sleep(settle * 1_000);
    const before = residentBytes(pid);
    await generator.ask('open', { target, sockets: SOCKETS, topics: 1, publishers: 1, size: 128 });
    await sleep(settle * 1_000);
    const after = residentBytes(pid);
    // Not before memory was read: these prove that every socket is subscribed.
    await generator.ask('publish', { count: PROOFS });
    return {
      faults: faultsOf(await generator.ask('finish')),
      values: {
        [PER_SOCKET]: (after - before) / 1024 / SOCKETS,
        'MiB before': before / 1024 ** 2,
        'MiB after': after / 1024 ** 2,
      },
    };
  },
};
