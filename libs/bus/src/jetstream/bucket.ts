/** Follows a KV bucket: first everything it holds, then every change, over reconnects and re-creations. */
import { type KvEntry, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';

/** The pause before a failed watch is tried again, in milliseconds. */
const PAUSE = 250;

export interface BucketFollower {
  /** Resolves once everything that the bucket held at the start was applied; waits for the bucket to exist. */
  readonly ready: Promise<void>;
  close(): void;
}

/**
 * @param filter which keys, in NATS's syntax
 * @param apply takes each entry; deletes have another `operation` than `PUT`. After a re-creation entries come
 *   again; what the new bucket lacks is not announced, so that a lost bucket keeps each process's last copy
 */
export function followBucket(
  nc: NatsConnection,
  bucket: string,
  filter: string,
  apply: (entry: KvEntry) => void,
): BucketFollower {
  let closed = false;
  let stop = () => {};
  let wake = () => {};
  const ready = new Promise<void>((resolve) => {
    const run = async () => {
      while (!closed && !nc.isClosed()) {
        try {
          const kv = await new Kvm(nc).open(bucket);
          const watch = await kv.watch({ key: filter });
          stop = () => watch.stop();
          if (closed) return stop();
          if (await isEmpty(kv.keys(filter))) resolve();
          for await (const entry of watch) {
            apply(entry);
            if (entry.delta === 0) resolve();
          }
        } catch {
          // The bucket does not exist yet, or NATS is away: both pass.
        }
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

async function isEmpty(keys: Promise<AsyncIterable<string>>): Promise<boolean> {
  for await (const _ of await keys) return false;
  return true;
}
