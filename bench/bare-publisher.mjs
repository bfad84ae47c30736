/**
 * A client that stores messages in JetStream itself, with what the gateway would store: the same stream, the same
 * subject, the same payload, headers of the same names and lengths. Takes the commands of a generator.
 */
import { randomBytes } from 'node:crypto';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, headers as newHeaders } from '@nats-io/transport-node';
import { answerCommands } from './commands.mjs';
import { payloadTemplate } from './ledger.mjs';
import { cpuSeconds, machineCpuSeconds } from './proc.mjs';

const STREAM = 'PH_GLOBAL';
const MESSAGE_ID = 'Nats-Msg-Id';

/** @type {{ js: import('@nats-io/jetstream').JetStreamClient, sample: import('@nats-io/jetstream').StoredMsg, payload: string } | undefined} */
let opened;
let published = 0;
let received = 0;
let publishing = false;
/** @type {Promise<void>[]} */
let lanes = [];
/** @type {Set<string>} */
const failures = new Set();

/** Publishes one after another, each once the one before it is stored. */
async function lane() {
  if (!opened) throw new Error('Nothing is open');
  const { js, sample, payload } = opened;
  const length = sample.header.get(MESSAGE_ID).length;
  while (publishing) {
    const headers = newHeaders();
    for (const [name, [value]] of sample.header) if (name !== MESSAGE_ID) headers.set(name, value ?? '');
    const msgID = randomBytes(length).toString('base64url').slice(0, length);
    published++;
    const { duplicate } = await js.publish(sample.subject, payload, { headers, msgID });
    if (duplicate) failures.add('a message counted as a duplicate');
    else received++;
  }
}

answerCommands({
  /** @param {import('./generator.mjs').Opening} opening */
  open: async ({ target, size }) => {
    const connection = await connect({ servers: `127.0.0.1:${target.port}` });
    const sample = await (await jetstreamManager(connection)).streams.getMessage(STREAM, { seq: 1 });
    if (!sample) throw new Error(`${STREAM} holds no event to copy the headers from`);
    opened = { js: jetstream(connection), sample, payload: payloadTemplate(size) };
  },
  /** @param {{ window: number }} pace */
  start: async ({ window }) => {
    publishing = true;
    lanes = Array.from({ length: window }, () =>
      lane().catch((error) => {
        failures.add(error.message);
      }),
    );
  },
  /** @param {{ pids: number[] }} args */
  mark: async ({ pids }) => ({
    at: performance.now() / 1_000,
    published,
    received,
    reads: 0,
    latencies: { count: 0 },
    cpu: Object.fromEntries(pids.map((pid) => [pid, cpuSeconds(pid)])),
    ownCpu: cpuSeconds(process.pid),
    machineCpu: machineCpuSeconds(),
  }),
  finish: async () => {
    publishing = false;
    await Promise.all(lanes);
    const missing = published - received;
    return { published, received, missing, doubled: 0, late: 0, lost: 0, failures: [...failures] };
  },
});
