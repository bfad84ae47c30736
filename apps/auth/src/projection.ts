import { setTimeout as sleep } from 'node:timers/promises';
import { JetStreamApiCodes, JetStreamApiError, jetstreamManager } from '@nats-io/jetstream';
import { type KV, type KvEntry, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { bucketOptions } from '@posthorn/bus/platform';
import { BUCKETS, type Revocation } from '@posthorn/contracts';
import { BucketWatch, type Logger, reach, revocationOf } from '@posthorn/service';
import { revocationIn, type StoredRevocation } from './entities.js';
import type { RevocationStore } from './revocation-store.js';
import { keyOf, type Target } from './target.js';

/** What a {@link Projection} needs. */
export interface ProjectionOptions {
  readonly nc: NatsConnection;
  readonly store: RevocationStore;
  /** Copies of the bucket in a NATS cluster. */
  readonly replicas: number;
  /** How long a revocation is kept, in ms; undefined: for ever. */
  readonly retention: number | undefined;
  readonly logger: Logger;
}

/** How long a caller is kept waiting for the bucket, in ms: less than its call's time-out. */
const PUT_MS = 1_000;
/** Writes in flight at once while the bucket is rebuilt. */
const AT_ONCE = 100;
/** How often a write that lost against another one is tried. */
const ATTEMPTS = 10;

/**
 * The revocations in the bucket `ph-revoked`, where every gateway follows them. PostgreSQL is what counts: the
 * bucket can be rebuilt from it at any time, by any replica and by several at once.
 *
 * Every write names the revision that it replaces and reaches at least as far, so no order of writes takes a
 * revocation back.
 */
export class Projection {
  readonly #options: ProjectionOptions;
  readonly #kvm: Kvm;
  #repair: () => void = () => {};

  constructor(options: ProjectionOptions) {
    this.#options = options;
    this.#kvm = new Kvm(options.nc);
  }

  /** Says whom to tell when a write failed, so that {@link reconcile} is called soon. */
  onFailure(repair: () => void): void {
    this.#repair = repair;
  }

  /** Writes a revocation that PostgreSQL has committed. Answers in time whether it is in the bucket; never rejects. */
  async push(target: Target, revocation: Revocation): Promise<boolean> {
    const late = new AbortController();
    const write = async () => {
      const bucket = await this.#kvm.open(BUCKETS.revoked);
      const key = keyOf(target);
      await put(bucket, key, revocation, await bucket.get(key));
      return true;
    };
    const tooLate = async () => {
      await sleep(PUT_MS, undefined, { signal: late.signal });
      throw new Error('no answer in time');
    };
    try {
      return await Promise.race([write(), tooLate()]);
    } catch (err) {
      this.#options.logger.warn({ err, entry: keyOf(target) }, 'a revocation was not projected; it will be');
      this.#repair();
      return false;
    } finally {
      late.abort();
    }
  }

  /**
   * Makes the bucket hold at least what PostgreSQL holds, and creates it where it is missing. What only the
   * bucket holds stays: when in doubt, a token remains revoked. Then forgets what is past its retention.
   */
  async reconcile(): Promise<void> {
    const { store, replicas, retention, logger } = this.#options;
    const bucket = await this.#kvm.create(BUCKETS.revoked, bucketOptions(replicas));
    const listed = await contentOf(bucket);
    const outlived = retention === undefined ? undefined : new Date(Date.now() - retention);
    const changes = { written: 0, forgotten: 0 };
    for await (const rows of store.all()) {
      const old = rows.filter((row) => outlived && isOlder(row, outlived));
      const missing = rows.filter(
        (row) => !old.includes(row) && !holds(listed.get(keyOf(row)), revocationIn(row)),
      );
      for (let i = 0; i < missing.length; i += AT_ONCE) {
        const batch = missing.slice(i, i + AT_ONCE);
        await Promise.all(
          batch.map((row) => put(bucket, keyOf(row), revocationIn(row), listed.get(keyOf(row)))),
        );
      }
      for (const row of old) await this.#forget(bucket, row, listed.get(keyOf(row)), outlived as Date);
      changes.written += missing.length;
      changes.forgotten += old.length;
    }
    if (outlived) await this.#sweep(listed, outlived);
    if (changes.written + changes.forgotten > 0) logger.info(changes, 'bucket reconciled');
  }

  /**
   * The bucket was listed before the row was read, and the row is deleted last: a revocation that is asked for
   * again in between has either changed the row, or changes the entry, or deletes nothing here.
   */
  async #forget(bucket: KV, row: StoredRevocation, entry: KvEntry | undefined, before: Date): Promise<void> {
    try {
      if (entry?.operation === 'PUT') await bucket.purge(keyOf(row), { previousSeq: entry.revision });
    } catch (error) {
      if (isOvertaken(error)) return;
      throw error;
    }
    await this.#options.store.forget(row, before);
  }

  /** A deletion is an entry too. Once everybody has seen it, it goes, or the bucket would only ever grow. */
  async #sweep(listed: Map<string, KvEntry>, before: Date): Promise<void> {
    const seen = [...listed.values()].filter(
      ({ operation, created }) => operation !== 'PUT' && created <= before,
    );
    if (seen.length === 0) return;
    const { streams } = await jetstreamManager(this.#options.nc);
    for (const { key, revision } of seen) {
      const filter = `$KV.${BUCKETS.revoked}.${key}`;
      await streams.purge(`KV_${BUCKETS.revoked}`, { filter, seq: revision + 1 });
    }
  }
}

/** Everything that a bucket holds, deletions included. */
async function contentOf(bucket: KV): Promise<Map<string, KvEntry>> {
  const content = new Map<string, KvEntry>();
  const watch = await BucketWatch.start(bucket, (entry) => content.set(entry.key, entry));
  watch.stop();
  return content;
}

/** Writes a revocation over the entry that was seen, or over what has come in its place. */
async function put(
  bucket: KV,
  key: string,
  revocation: Revocation,
  seen: KvEntry | null | undefined,
): Promise<void> {
  let entry = seen;
  for (let attempt = 1; !holds(entry, revocation); attempt++) {
    try {
      const value = JSON.stringify(furthest(entry, revocation));
      await bucket.put(key, value, { previousSeq: entry?.revision ?? 0 });
      return;
    } catch (error) {
      if (!isOvertaken(error) || attempt >= ATTEMPTS) throw error;
    }
    entry = await bucket.get(key);
  }
}

/**
 * Whether an entry reaches as far as a revocation and is no older. An older one is written anew even if it
 * says the same: its revision must not be one that {@link Projection} is about to forget elsewhere.
 */
function holds(entry: KvEntry | null | undefined, revocation: Revocation): boolean {
  const held = entry && revocationOf(entry);
  return !!held && reach(held) >= reach(revocation) && held.revokedAt >= revocation.revokedAt;
}

/** A revocation, with the reach of the entry that it replaces where that is further. */
function furthest(entry: KvEntry | null | undefined, revocation: Revocation): Revocation {
  const held = entry && revocationOf(entry);
  return held && reach(held) > reach(revocation)
    ? { ...revocation, issuedBefore: held.issuedBefore }
    : revocation;
}

function isOlder({ revokedAt }: StoredRevocation, than: Date): boolean {
  return revokedAt <= than;
}

function isOvertaken(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamWrongLastSequence;
}
