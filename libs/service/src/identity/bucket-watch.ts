import type { KV, KvWatchEntry } from '@nats-io/kv';

/** How long the current content of a bucket may take to arrive, in ms. */
const LOAD_MS = 10_000;

/** One watch of a KV bucket: its current content, then each change. */
export class BucketWatch {
  readonly #bucket: KV;
  readonly #created: string;
  #revision: number;
  #ended = false;
  #end: () => void = () => {};

  private constructor(bucket: KV, created: string, revision: number) {
    this.#bucket = bucket;
    this.#created = created;
    this.#revision = revision;
  }

  /**
   * Starts a watch, and resolves when the current content has been applied. Deletions are applied too: their
   * `operation` is not `PUT`.
   * @param apply must not throw
   * @throws when there is no such bucket, or its content does not arrive in time
   */
  static async start(bucket: KV, apply: (entry: KvWatchEntry) => void): Promise<BucketWatch> {
    const { values, streamInfo } = await bucket.status();
    const watch = new BucketWatch(bucket, streamInfo.created, streamInfo.state.last_seq);
    const entries = await bucket.watch();
    watch.#end = () => entries.stop();
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => {
        entries.stop();
        reject(new Error('the content did not arrive in time'));
      }, LOAD_MS);
      const loaded = () => {
        clearTimeout(late);
        resolve();
      };
      if (values === 0) loaded();
      const pump = async () => {
        for await (const entry of entries) {
          apply(entry);
          watch.#revision = Math.max(watch.#revision, entry.revision);
          if (entry.delta === 0) loaded();
        }
      };
      pump()
        .catch(() => {})
        .finally(() => {
          watch.#ended = true;
          clearTimeout(late);
          reject(new Error('the watch ended'));
        });
    });
    return watch;
  }

  /** Whether the watch has seen all there is, in the bucket that it was started on. */
  async isCurrent(): Promise<boolean> {
    const { created, state } = (await this.#bucket.status()).streamInfo;
    return !this.#ended && created === this.#created && state.last_seq <= this.#revision;
  }

  stop(): void {
    this.#end();
  }
}
