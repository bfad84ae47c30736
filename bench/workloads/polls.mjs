/** What a client costs that waits for a message of its own, and how soon it has one. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startPosthorn } from '../contenders/posthorn.mjs';
import { machineCpuSeconds, residentBytes } from '../proc.mjs';
import { pollers, sockets, subject } from '../waiters.mjs';

const WAITERS = 5_000;
const MESSAGES = 500;
const POLLS = 'long polls';
const SOCKETS = 'sockets';
const PER_WAITER = 'KiB/waiter';
const P50 = 'ms p50';
const P99 = 'ms p99';

/** @type {import('../workload.mjs').Workload<import('../contenders/posthorn.mjs').Posthorn>} */
export const polls = {
  name: 'polls',
  title: '5,000 clients wait, each for its own two topics; one after another is sent a message',
  sockets: WAITERS,
  contenders: { [POLLS]: startPosthorn, [SOCKETS]: startPosthorn },
  columns: [
    { name: PER_WAITER, digits: 2 },
    { name: P50, digits: 2 },
    { name: P99, digits: 2 },
  ],
  wants: [
    {
      text: `${PER_WAITER}, ${POLLS} over ${SOCKETS}`,
      figure: (of) => of(POLLS, PER_WAITER) / of(SOCKETS, PER_WAITER),
      atMost: 1,
    },
    { text: `${P99}, ${POLLS}`, figure: (of) => of(POLLS, P99), atMost: 20 },
  ],
  run: async (posthorn, _generator, { settle }, contender) => {
    const waiters = (contender === POLLS ? pollers : sockets)(posthorn, WAITERS);
    const pid = posthorn.pids.gateway;
    try {
      await sleep(settle * 1_000);
      const before = residentBytes(pid);
      await waiters.open();
      await sleep(settle * 1_000);
      const after = residentBytes(pid);
      const began = performance.now();
      const machine = machineCpuSeconds();
      posthorn.profile();
      const latencies = [];
      for (let n = 0; n < MESSAGES; n++) {
        const index = (n * 7_919) % WAITERS;
        const answered = waiters.answered(index);
        const sent = performance.now();
        await posthorn.publish(`user:${subject(index)}`, { n }, 'service');
        await answered;
        latencies.push(performance.now() - sent);
      }
      posthorn.profile();
      latencies.sort((a, b) => a - b);
      const seconds = (performance.now() - began) / 1_000;
      return {
        faults: [],
        otherCores: Math.max(0, (machineCpuSeconds() - machine) / seconds - 2),
        values: {
          [PER_WAITER]: (after - before) / 1024 / WAITERS,
          [P50]: latencies[Math.floor(MESSAGES * 0.5)] ?? Number.NaN,
          [P99]: latencies[Math.floor(MESSAGES * 0.99)] ?? Number.NaN,
        },
      };
    } finally {
      waiters.close();
    }
  },
};
