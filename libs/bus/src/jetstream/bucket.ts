/**
 * Follows a KV bucket: first everything it holds, then every change, over reconnects and re-creations.
 *
 * Written on an ordered consumer: the watch of nats.js goes on silently after its bucket was deleted, and in a
 * bucket created anew it looks for revisions beyond the old ones.
 */
import { DeliverPolicy, jetstream } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { headersOf } from './headers.js';

/** The pause before a failed watch is tried again, in milliseconds. */
const PAUSE = 250;
/** How long one pull lasts, in milliseconds: a lost consumer is noticed after two silent halves of it. */
const PULL = 10_000;

export interface BucketFollower {
  /** Resolves once everything that the bucket held at the start was applied; waits for the bucket to exist. */
  readonly ready: Promise<void>;
  close(): void;
}

/**
 * @param filter which keys, in NATS's syntax
 * @param apply takes each value, undefined for a key that was deleted. After a re-creation values come again;
 *   what the new bucket lacks is not announced, so that a lost bucket keeps each process's last copy. A throw
 *   leaves that one value out
 */
export function followBucket(
  nc: NatsConnection,
  bucket: string,
  filter: string,
  apply: (key: string, value: Uint8Array | undefined) => void,
): BucketFollower {
  const prefix = `$KV.${bucket}.`;
  let closed = false;
  let stop = () => {};
  let wake = () => {};

  const follow = async (caughtUp: () => void): Promise<void> => {
    const consumer = await jetstream(nc).consumers.get(`KV_${bucket}`, {
      filter_subjects: prefix + filter,
      deliver_policy: DeliverPolicy.LastPerSubject,
    });
    const { num_pending } = await consumer.info(true);
    const messages = await consumer.consume({ expires: PULL, abort_on_missing_resource: true });
    stop = () => messages.stop();
    if (closed) stop();
    if (num_pending === 0) caughtUp();
    for await (const message of messages) {
      const operation = headersOf(message)?.last('KV-Operation');
      try {
        apply(message.subject.slice(prefix.length), operation ? undefined : message.data);
      } catch {
        // Only its owner writes a bucket; what it did not write is nothing to act on.
      }
      if (message.info.pending === 0) caughtUp();
    }
  };

  const ready = new Promise<void>((resolve) => {
    const run = async () => {
      while (!closed && !nc.isClosed()) {
        // The bucket may not exist yet or any more, or NATS is away: all of that passes.
        await follow(resolve).catch(() => {});
        if (closed) return;
        await new Promise<void>((next) => {
          const timer = setTimeout(next, PAUSE);
          wake = () => {
            clearTimeout(timer);
            next();
          };
        });
      }
    };
    void run();
  });
  return {
    ready,
    close() {
      closed = true;
      stop();
      wake();
    },
  };
}
