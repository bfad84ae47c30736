import { isDeepStrictEqual } from 'node:util';
import { jetstreamManager, type StreamAPI, type StreamInfo } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { bucketOptions } from '@posthorn/bus/platform';
import { BUCKETS, makeEpoch, type StreamRecord } from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { Logger } from '@posthorn/service';
import type { DataSource } from 'typeorm';
import { StreamGeneration } from './entities.js';

/** A stream as it is now. */
export interface ObservedStream {
  readonly created: string;
  readonly lastSequence: number;
  /** When the last event was stored; null when none was. */
  readonly lastTime: string | null;
  /** When the event at the highest sequence recorded was stored; null when it is gone. */
  readonly timeAtHighest: string | null;
}

/** What is recorded of a stream, without its name. */
export type StreamHistory = Omit<StreamGeneration, 'stream'>;

/**
 * What is to be recorded of a stream, given what was. The generation rises when sequences can no longer be
 * compared with those given out before: another stream of that name, fewer events than were seen, or, in a
 * stream that was restored and has been written to since, another event where the last one seen was.
 */
export function advance(recorded: StreamHistory | undefined, observed: ObservedStream): StreamHistory {
  const { created, lastSequence, lastTime, timeAtHighest } = observed;
  const now = { created, highestSequence: lastSequence, highestTime: lastTime };
  if (!recorded) return { ...now, generation: 1 };
  const replaced =
    timeAtHighest !== null && recorded.highestTime !== null && timeAtHighest !== recorded.highestTime;
  const comparable = created === recorded.created && lastSequence >= recorded.highestSequence && !replaced;
  if (!comparable) return { ...now, generation: recorded.generation + 1 };
  if (lastSequence === recorded.highestSequence) return recorded;
  return { ...now, generation: recorded.generation };
}

/** What {@link Epochs} need. */
export interface EpochsOptions {
  readonly nc: NatsConnection;
  readonly source: DataSource;
  readonly replicas: number;
  readonly logger: Logger;
}

/** The epoch of each stream: recorded in PostgreSQL, projected into the bucket `ph-streams`. */
export class Epochs {
  readonly #options: EpochsOptions;
  readonly #kvm: Kvm;

  constructor(options: EpochsOptions) {
    this.#options = options;
    this.#kvm = new Kvm(options.nc);
  }

  /**
   * Looks at a stream, raises its generation if need be, records how far it has come, and creates the bucket
   * where it is missing.
   *
   * The lock is taken before the stream is asked: whatever another replica recorded, this look is newer, and
   * of several that see a restored stream one raises the generation.
   */
  async record(stream: string): Promise<StreamRecord> {
    const { nc, source, replicas, logger } = this.#options;
    const { streams } = await jetstreamManager(nc, { checkAPI: false });
    const bucket = await this.#kvm.create(BUCKETS.streams, bucketOptions(replicas));
    return withTransaction(source, async (tx) => {
      await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`posthorn:stream:${stream}`]);
      const recorded = await tx.findOneBy(StreamGeneration, { stream });
      const info = await streams.info(stream);
      const projected = await projectedRecord(bucket, stream);
      const known = latest(recorded ?? undefined, projected);
      const next = advance(known, await observe(streams, info, known));
      if (next !== recorded) await tx.save(StreamGeneration, { ...next, stream });
      if (known && next.generation > known.generation) {
        logger.warn(
          { stream, generation: next.generation, created: info.created, sequence: info.state.last_seq },
          'the stream was restored or created anew: its positions begin a new epoch',
        );
      }
      const record = recordOf(stream, next);
      // Before the commit, under the lock: the bucket's generation never goes back.
      if (!isDeepStrictEqual(record, projected)) await bucket.put(stream, JSON.stringify(record));
      return record;
    });
  }
}

/**
 * What was recorded, or what the bucket says where that is ahead: PostgreSQL was lost or restored from a
 * backup, and clients hold positions of generations that it does not know.
 */
function latest(
  recorded: StreamHistory | undefined,
  projected: StreamRecord | undefined,
): StreamHistory | undefined {
  if (!projected) return recorded;
  const { created, generation } = projected;
  if (!recorded) return { created, generation, highestSequence: 0, highestTime: null };
  if (created !== recorded.created || generation <= recorded.generation) return recorded;
  return { ...recorded, generation };
}

async function observe(
  streams: StreamAPI,
  { config, created, state }: StreamInfo,
  recorded: StreamHistory | undefined,
): Promise<ObservedStream> {
  const { last_seq: lastSequence, last_ts } = state;
  const lastTime = lastSequence > 0 ? last_ts : null;
  const unmoved = lastSequence === recorded?.highestSequence && lastTime === recorded.highestTime;
  const atHighest =
    recorded && recorded.highestSequence > 0 && !unmoved
      ? await streams.getMessage(config.name, { seq: recorded.highestSequence })
      : null;
  return { created, lastSequence, lastTime, timeAtHighest: atHighest?.timestamp ?? null };
}

async function projectedRecord(bucket: KV, stream: string): Promise<StreamRecord | undefined> {
  const entry = await bucket.get(stream);
  if (entry?.operation !== 'PUT') return undefined;
  try {
    const { epoch, created, generation } = entry.json<StreamRecord>();
    return Number.isSafeInteger(generation) ? { stream, epoch, created, generation } : undefined;
  } catch {
    return undefined;
  }
}

function recordOf(stream: string, { created, generation }: StreamHistory): StreamRecord {
  return { stream, epoch: makeEpoch(Date.parse(created), generation), created, generation };
}
