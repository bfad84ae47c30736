/** The epochs of the streams, as the registry keeps them in the bucket `ph-streams`. */
import type { NatsConnection } from '@nats-io/transport-node';
import { BUCKETS, ProblemError, type Scope, STREAMS, type StreamRecord } from '@posthorn/contracts';
import { type BucketFollower, followBucket } from './bucket.js';

const utf8 = new TextDecoder();

export class Epochs {
  readonly #epochs = new Map<string, string>();
  #follower: BucketFollower | undefined;

  /** Resolves once the epoch of every stream with events is known. */
  async follow(nc: NatsConnection): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#follower = followBucket(nc, BUCKETS.streams, '>', (stream, value) => {
        if (!value) return;
        const record = JSON.parse(utf8.decode(value)) as StreamRecord;
        if (record.stream !== stream || !/^[0-9a-z]{1,24}$/.test(record.epoch)) return;
        this.#epochs.set(record.stream, record.epoch);
        if (this.#epochs.has(STREAMS.global.name) && this.#epochs.has(STREAMS.local.name)) resolve();
      });
    });
  }

  /** @throws ProblemError `unavailable` before {@link follow} has resolved */
  of(scope: Scope): string {
    const epoch = this.#epochs.get(STREAMS[scope].name);
    if (epoch === undefined) throw new ProblemError('unavailable', 'The streams are not ready yet');
    return epoch;
  }

  close(): void {
    this.#follower?.close();
  }
}
