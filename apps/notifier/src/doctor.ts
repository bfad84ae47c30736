/** What the notifier needs, looked at: NATS, its durable consumers, and its database. */
import {
  type ConsumerInfo,
  JetStreamApiCodes,
  JetStreamApiError,
  jetstreamManager,
} from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/transport-node';
import { STREAMS } from '@posthorn/contracts';
import { examineDatabase } from '@posthorn/database';
import {
  attempt,
  backlogFinding,
  examination,
  examineNats,
  type Finding,
  jetStreamFindings,
  loginFindings,
  processFindings,
  settingsFinding,
} from '@posthorn/service';
import { type NotifierConfig, readNotifierConfig } from './config.js';
import { LETTERS } from './dead-letters/projection.js';
import { consumerName, WORKERS } from './events-server.js';
import { SCHEMA } from './schema.js';

/** Files that one process opens: itself, its probes, its pool and NATS. */
const FILES = 1_024;

/** A durable consumer as the notifier sets it up. */
interface Wanted {
  readonly stream: string;
  readonly name: string;
  /** In nanoseconds. */
  readonly ack_wait: number;
  readonly max_ack_pending: number;
}

/** Looks at everything, with the notifier's own logins. */
export const examine = examination(readNotifierConfig, async (config, production) => [
  ...configurationFindings(config),
  ...(await examineNats('notifier', config, production, (nc) => consumers(nc, config))),
  ...(await attempt('database.reachable', () => examineDatabase('notifier', config, SCHEMA))),
]);

/** What can be said without asking anybody. */
export function configurationFindings(config: NotifierConfig): Finding[] {
  return [...processFindings(FILES), ...loginFindings(config)];
}

async function consumers(nc: NatsConnection, config: NotifierConfig): Promise<Finding[]> {
  const { findings, stats } = await jetStreamFindings(nc);
  if (!stats) return findings;
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  const found = await attempt('consumers.settings', async () => {
    const looked = wanted(config).map(async (one) => {
      const info = await jsm.consumers.info(one.stream, one.name).catch(unlessMissing);
      return [consumerFinding(one, info), ...(info ? [backlogFinding(info)] : [])];
    });
    return (await Promise.all(looked)).flat();
  });
  return [...findings, ...found];
}

function wanted({ instance, inFlight, ackWait }: NotifierConfig): Wanted[] {
  return [
    ...WORKERS.map((worker) => ({
      stream: STREAMS.local.name,
      name: consumerName(worker, instance),
      ack_wait: nanos(ackWait),
      max_ack_pending: inFlight,
    })),
    { stream: STREAMS.dead.name, name: consumerName('dead-letters', instance), ...LETTERS },
  ];
}

function consumerFinding(wants: Wanted, info: ConsumerInfo | undefined): Finding {
  const { stream, name } = wants;
  const differences = (['ack_wait', 'max_ack_pending'] as const).flatMap((setting) => {
    const is = info?.config[setting];
    if (!info || is === wants[setting]) return [];
    const shown = (value: number | undefined) =>
      setting === 'ack_wait' ? `${Number(value) / 1e9} s` : String(value);
    return [{ text: `${setting} is ${shown(is)}, wanted ${shown(wants[setting])}`, changeable: true }];
  });
  const rolledOut =
    'Roll the notifier out with the configuration that you want: it changes the consumer at its start.';
  return settingsFinding(
    'consumers.settings',
    { what: `the consumer ${name} of ${stream}`, missing: info === undefined, differences },
    {
      missing: 'Start the notifier of this INSTANCE: it makes it, and takes what the stream still holds.',
      changeable: rolledOut,
      fixed: rolledOut,
    },
  );
}

function unlessMissing(error: unknown): undefined {
  const codes: readonly number[] = [JetStreamApiCodes.ConsumerNotFound, JetStreamApiCodes.StreamNotFound];
  if (error instanceof JetStreamApiError && codes.includes(error.code)) return undefined;
  throw error;
}
