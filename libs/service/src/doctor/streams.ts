/** Streams, buckets and consumers as the servers show them, turned into findings. */
import type { ConsumerInfo, StreamInfo } from '@nats-io/jetstream';
import type { CheckId } from './checks.js';
import { type ClockReading, clockFinding } from './clock.js';
import { type Finding, finding, ok } from './finding.js';
import { bytesText } from './nats.js';

const DAY_MS = 24 * 3_600_000;
const HOUR_MS = 3_600_000;
const NS_PER_MS = 1e6;
/** Operations that a copy may be behind without a word. */
const LAG = 1_000;
/** Events that may wait for a consumer without a word. */
const BACKLOG = 10_000;
/** The share of its bytes from which on a stream counts as full: it drops whole messages, and so is never quite so. */
const FULL = 0.98;

/** What is there of something that was to be set up, against what is wanted. */
export interface Settings {
  /** As in "the stream PH_GLOBAL". */
  readonly what: string;
  readonly missing: boolean;
  /** Each as a sentence without a full stop, and whether it can be changed on what exists. */
  readonly differences: readonly { readonly text: string; readonly changeable: boolean }[];
}

/** What to do about each of the three ways in which something is not as wanted. */
export interface Remedies {
  readonly missing: string;
  readonly changeable: string;
  readonly fixed: string;
}

/** Names each difference, whether it can be changed live, and the one thing that puts all of them right. */
export function settingsFinding(
  id: CheckId,
  { what, missing, differences }: Settings,
  remedies: Remedies,
): Finding {
  if (missing) return finding(id, 'failure', `${what} is missing`, remedies.missing);
  if (differences.length === 0) return ok(id, `${what} is as wanted`);
  const fixed = differences.some(({ changeable }) => !changeable);
  const texts = differences.map(
    ({ text, changeable }) => `${text} (${changeable ? 'can' : 'cannot'} be changed live)`,
  );
  return finding(
    id,
    fixed ? 'failure' : 'warning',
    `${what}: ${texts.join('; ')}`,
    fixed ? remedies.fixed : remedies.changeable,
  );
}

/** The leader and the copies of a stream or bucket. */
export function copiesFinding({ config, cluster }: StreamInfo): Finding {
  const { name } = config;
  if (!cluster?.name) return ok('streams.copies', `${name} has one copy, on a lone server`);
  if (!cluster.leader)
    return finding(
      'streams.copies',
      'failure',
      `${name} has no leader`,
      `Bring the servers back that hold it: more than half of its copies are away (nats stream info ${name}).`,
    );
  const away = (cluster.replicas ?? []).filter(({ offline }) => offline);
  const behind = (cluster.replicas ?? []).filter(
    ({ offline, current, lag }) => !offline && (!current || (lag ?? 0) > LAG),
  );
  const names = (peers: readonly { name: string }[]) => peers.map(({ name: peer }) => peer).join(', ');
  const problems = [
    ...(away.length > 0 ? [`${names(away)} away`] : []),
    ...(behind.length > 0 ? [`${names(behind)} not up to date`] : []),
  ];
  if (problems.length === 0)
    return ok('streams.copies', `${name}: ${config.num_replicas} copies, leader ${cluster.leader}`);
  return finding(
    'streams.copies',
    away.length > 0 ? 'failure' : 'warning',
    `${name}, of ${config.num_replicas} copies: ${problems.join(', ')}`,
    away.length > 0
      ? 'Bring these servers back: nothing is lost, and the next failure can stop the stream.'
      : 'Wait, and look again: a copy that stays behind has a slow disk or network (nats server report jetstream).',
  );
}

/**
 * Whether what a stream may hold is enough for how long events are to be kept.
 * @param now in milliseconds of the epoch
 */
export function retentionFinding({ config, state }: StreamInfo, now: number): Finding {
  const { name, max_bytes, max_age } = config;
  const wanted = max_age / NS_PER_MS;
  const used = `${name} holds ${bytesText(state.bytes)} of ${bytesText(max_bytes)}`;
  const span = now - Date.parse(state.first_ts);
  // A burst of the last minutes says nothing of a week.
  if (state.messages === 0 || span < HOUR_MS) return ok('streams.retention', used);
  const full = state.bytes >= max_bytes * FULL;
  const holds = full ? span : (span * max_bytes) / state.bytes;
  const days = (ms: number) => `${Number((ms / DAY_MS).toPrecision(2))} days`;
  if (holds >= wanted) return ok('streams.retention', used);
  return finding(
    'streams.retention',
    'warning',
    full
      ? `${used}: it is full with the last ${days(span)}, and ${days(wanted)} are wanted`
      : `${used}: at the rate so far it is full after ${days(holds)}, and ${days(wanted)} are wanted`,
    'Raise STREAM_MAX_BYTES (and the disks of NATS), or lower STREAM_MAX_AGE to what is promised; PUBLISHES_PER_DAY and STORED_BYTES_PER_DAY limit an audience.',
  );
}

/** What waits for a consumer. */
export function backlogFinding(info: ConsumerInfo): Finding {
  const { name, num_pending, num_ack_pending, num_waiting, config } = info;
  const atLimit = num_ack_pending >= (config.max_ack_pending ?? Infinity);
  const found = `${name}: ${num_pending} waiting, ${num_ack_pending} in work`;
  if (num_waiting === 0 && num_ack_pending === 0)
    return finding(
      'consumers.backlog',
      'warning',
      `${found}, and nobody takes them`,
      'Start the notifier of this INSTANCE.',
    );
  if (atLimit)
    return finding(
      'consumers.backlog',
      'warning',
      `${found}, which is its limit`,
      'See whether PostgreSQL is slow; else start another notifier, or raise EVENTS_IN_FLIGHT.',
    );
  if (num_pending > BACKLOG)
    return finding(
      'consumers.backlog',
      'warning',
      found,
      'Start another notifier, and see whether PostgreSQL is slow.',
    );
  return ok('consumers.backlog', found);
}

/**
 * JetStream's clock, from what it answers to a question for a stream.
 * @param ask asks for the stream; servers before 2.10 do not say their time
 */
export async function jetStreamClock(ask: () => Promise<StreamInfo | undefined>): Promise<Finding> {
  // The first question may wait for a connection between servers.
  await ask();
  const asked = Date.now();
  const ts = (await ask())?.ts;
  const answered = Date.now();
  if (ts === undefined)
    return finding(
      'clock.nats',
      'unchecked',
      'servers before 2.10 tell no client their time',
      'Set NATS_MONITOR_URL, where each server shows it; or compare `date` on the machines.',
    );
  return clockFinding('clock.nats', 'JetStream', { asked, answered, theirs: Date.parse(ts) });
}

/** The clocks of servers that were asked on their monitoring port. */
export function monitoredClocks(
  servers: readonly { varz: { server_name: string }; clock: ClockReading }[],
): Finding[] {
  return servers.map(({ varz, clock }) =>
    clockFinding('clock.nats', `NATS server ${varz.server_name}`, clock),
  );
}

/** A KV bucket of an app, which makes it where it is missing and changes nothing of what exists. */
export function bucketFindings(settings: Settings, info: StreamInfo | undefined): Finding[] {
  const name = info?.config.name ?? '';
  return [
    settingsFinding('buckets.settings', settings, {
      missing: 'Start the app that owns it: it makes it, with everything in it.',
      changeable: `Change it: nats stream edit ${name}, for copies --replicas <number>.`,
      fixed: `Remove it (nats stream rm ${name}): its app makes it anew, with everything in it, within minutes.`,
    }),
    ...(info ? [copiesFinding(info)] : []),
  ];
}
