import { createHash } from 'node:crypto';
import {
  AckPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamClient,
  jetstream,
} from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import { type NatsConnection, nanos } from '@nats-io/transport-node';
import { bucketOptions } from '@posthorn/bus/platform';
import { type AudienceRecord, audienceKey, BUCKETS, type TopicRecord, topicKey } from '@posthorn/contracts';
import type { Logger } from '@posthorn/service';
import type { DataSource } from 'typeorm';
import { Audience, RegisteredTopic } from './entities.js';
import { audienceRecord, topicRecord } from './records.js';

/** A caller waits 2 s for its answer, and this write comes before it. */
const PUT_MS = 1_000;
const PAGE = 500;

/** What a {@link Projection} needs. */
export interface ProjectionOptions {
  readonly nc: NatsConnection;
  readonly source: DataSource;
  readonly replicas: number;
  readonly logger: Logger;
}

/** One key of the bucket as it was seen. */
interface Seen {
  readonly revision: number;
  /** SHA-256 of the value, null where it was deleted: values may be large, and there may be many. */
  readonly digest: string | null;
}

/**
 * Audiences and topics in the bucket `ph-topics`, where the other apps read them. PostgreSQL is what counts:
 * the bucket can be rebuilt from it at any time, by any replica, and by several at once.
 */
export class Projection {
  readonly #options: ProjectionOptions;
  readonly #js: JetStreamClient;
  readonly #kvm: Kvm;
  #repair: () => void = () => {};

  constructor(options: ProjectionOptions) {
    this.#options = options;
    this.#js = jetstream(options.nc);
    this.#kvm = new Kvm(this.#js);
  }

  /** Says whom to tell when a write failed, so that {@link rebuild} is called soon. */
  onFailure(repair: () => void): void {
    this.#repair = repair;
  }

  /**
   * Writes a record that PostgreSQL has committed. Never rejects: a failed write is repaired later, and
   * until then whoever misses the record asks by a call.
   */
  async put(key: string, record: AudienceRecord | TopicRecord): Promise<void> {
    try {
      const bucket = await this.#kvm.open(BUCKETS.topics);
      await bucket.put(key, JSON.stringify(record), { timeout: PUT_MS });
    } catch (err) {
      this.#options.logger.warn({ err, entry: key }, 'a record was not projected; it will be');
      this.#repair();
    }
  }

  /**
   * Makes the bucket hold what PostgreSQL holds, no less and no more, and creates it where it is missing.
   *
   * The bucket is listed before PostgreSQL is read: a record is committed before it is projected, so what was
   * listed and is not found was deleted. Every write names the revision it replaces, so that it cannot undo
   * one that came in between.
   */
  async rebuild(): Promise<void> {
    const bucket = await this.#kvm.create(BUCKETS.topics, bucketOptions(this.#options.replicas));
    const seen = await listing(this.#js);
    const changes = { written: 0, deleted: 0 };
    for await (const records of this.#records()) {
      const written = await Promise.all(records.map(([key, value]) => this.#write(bucket, seen, key, value)));
      changes.written += written.filter(Boolean).length;
    }
    for (const [key, { revision, digest }] of seen) {
      if (digest === null) continue;
      await unlessOvertaken(bucket.delete(key, { previousSeq: revision }));
      changes.deleted += 1;
    }
    if (changes.written > 0 || changes.deleted > 0) this.#options.logger.info(changes, 'projection repaired');
  }

  /** Whether the bucket is there. */
  async exists(): Promise<boolean> {
    const bucket = await this.#kvm.open(BUCKETS.topics);
    try {
      await bucket.status();
      return true;
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound) return false;
      throw error;
    }
  }

  async #write(bucket: KV, seen: Map<string, Seen>, key: string, value: string): Promise<boolean> {
    const before = seen.get(key);
    seen.delete(key);
    if (before?.digest === digestOf(value)) return false;
    return unlessOvertaken(bucket.put(key, value, { previousSeq: before?.revision ?? 0 }));
  }

  /** Everything that the bucket has to hold, in portions. */
  async *#records(): AsyncGenerator<[key: string, value: string][]> {
    const names = new Map<string, string>();
    for await (const audiences of this.#pages(Audience)) {
      for (const { id, name } of audiences) names.set(id, name);
      yield audiences.map((audience) => [
        audienceKey(audience.name),
        JSON.stringify(audienceRecord(audience)),
      ]);
    }
    for await (const topics of this.#pages(RegisteredTopic)) {
      yield topics.flatMap((topic): [string, string][] => {
        // Absent for an audience created since: whoever did so projects its topics too.
        const audience = names.get(topic.audienceId);
        if (audience === undefined) return [];
        return [[topicKey(audience, topic.path), JSON.stringify(topicRecord(audience, topic))]];
      });
    }
  }

  async *#pages<T extends { id: string }>(entity: new () => T): AsyncGenerator<T[]> {
    const repository = this.#options.source.getRepository(entity);
    let last: string | undefined;
    for (;;) {
      const query = repository.createQueryBuilder('row').orderBy('row.id').limit(PAGE);
      if (last !== undefined) query.where('row.id > :last', { last });
      const page = await query.getMany();
      if (page.length > 0) yield page;
      if (page.length < PAGE) return;
      last = page.at(-1)?.id;
    }
  }
}

/**
 * Every key of the bucket. Not by `bucket.history()`: where keys are written meanwhile it can wait for the
 * next heartbeat, 30 s, and it leaves its consumer behind. A key that is missed does no harm: writing it
 * fails on its revision.
 */
async function listing(js: JetStreamClient): Promise<Map<string, Seen>> {
  const stream = `KV_${BUCKETS.topics}`;
  const prefix = `$KV.${BUCKETS.topics}.`;
  const { consumers } = await js.jetstreamManager();
  const { name, num_pending } = await consumers.add(stream, {
    ack_policy: AckPolicy.None,
    inactive_threshold: nanos(60_000),
    mem_storage: true,
    num_replicas: 1,
  });
  const seen = new Map<string, Seen>();
  try {
    const consumer = await js.consumers.get(stream, name);
    let pending = num_pending;
    while (pending > 0) {
      pending = 0;
      for await (const message of await consumer.fetch({ max_messages: PAGE, expires: 1_000 })) {
        const deleted = message.headers?.has('KV-Operation') ?? false;
        const digest = deleted ? null : digestOf(message.data);
        seen.set(message.subject.slice(prefix.length), { revision: message.seq, digest });
        pending = message.info.pending;
        if (pending === 0) break;
      }
    }
  } finally {
    await consumers.delete(stream, name).catch(() => undefined);
  }
  return seen;
}

/** Whether a write was done; false where the key was written by somebody else since it was listed. */
async function unlessOvertaken(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    const overtaken =
      error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence;
    if (overtaken) return false;
    throw error;
  }
}

function digestOf(value: string | Uint8Array): string {
  return createHash('sha256').update(value).digest('base64');
}
