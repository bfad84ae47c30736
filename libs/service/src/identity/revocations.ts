import { setTimeout as sleep } from 'node:timers/promises';
import { type KvEntry, Kvm } from '@nats-io/kv';
import {
  BUCKETS,
  decodeToken,
  type Principal,
  ProblemError,
  type Revocation,
  revocationKey,
} from '@posthorn/contracts';
import { type Logger, onceUntil } from '../logger.js';
import type { NatsLink } from '../nats.js';
import { Routine } from '../routine.js';
import { BucketWatch } from './bucket-watch.js';

/** What a {@link RevocationList} reports to, and how it waits. */
export interface RevocationListOptions {
  readonly logger: Logger;
  /** How often the bucket is looked for before `load` gives up, with pauses from 100 ms up. Default: 5. */
  readonly attempts?: number;
  /** How often the copy is compared with the bucket, in ms. Default: 15,000. */
  readonly checkEvery?: number;
}

/** A revocation that just arrived: whose connections have to be looked at. */
export interface Revoked {
  readonly audience: string;
  /** Whether it ends a principal's token. */
  covers(principal: Principal): boolean;
}

/** The pause after a failed attempt to follow the bucket, in ms. */
const RETRY_MS = 1_000;

/**
 * This process's copy of the bucket `ph-revoked`, kept up to date. While NATS is away the copy stays as it
 * is, and a bucket that was lost takes nothing back: an entry leaves only when its deletion is seen.
 */
export class RevocationList {
  readonly #nats: NatsLink;
  readonly #logger: Logger;
  readonly #entries = new Map<string, Revocation>();
  readonly #listeners = new Set<(revoked: Revoked) => void>();
  #watch: BucketWatch | undefined;
  #unfollow: () => Promise<void> = async () => {};

  private constructor(nats: NatsLink, logger: Logger) {
    this.#nats = nats;
    this.#logger = logger;
  }

  /**
   * A list that holds everything that is in the bucket now.
   * @throws {ProblemError} `unavailable` when the bucket cannot be read after a few attempts, saying why
   */
  static async load(
    nats: NatsLink,
    { logger, attempts = 5, checkEvery = 15_000 }: RevocationListOptions,
  ): Promise<RevocationList> {
    const list = new RevocationList(nats, logger);
    const waiting = onceUntil(logger, {
      begins: `waiting for the bucket ${BUCKETS.revoked}`,
      ends: `the bucket ${BUCKETS.revoked} is there`,
    });
    for (let attempt = 1; ; attempt++) {
      try {
        await list.#open();
        waiting.end();
        list.#follow(checkEvery);
        return list;
      } catch (cause) {
        const reason = (cause as Error).message;
        if (attempt >= attempts) {
          throw new ProblemError('unavailable', `The bucket ${BUCKETS.revoked} cannot be read: ${reason}`, {
            cause,
          });
        }
        waiting.begin({ reason });
      }
      await sleep(50 * 2 ** attempt);
    }
  }

  /** Whether a principal's token has been revoked. Asks nobody. */
  isRevoked(principal: Principal): boolean {
    return keysOf(principal).some((key) => {
      const revocation = this.#entries.get(key);
      return revocation !== undefined && ends(revocation, principal);
    });
  }

  /** Whether one token was revoked by its own id: for tokens of which no user and no time of issue is known. */
  isTokenRevoked(audience: string, tokenId: string): boolean {
    return this.#entries.has(revocationKey.token(audience, tokenId));
  }

  /** Calls `listener` with each revocation that arrives from now on. Returns the way to stop it. */
  onRevoked(listener: (revoked: Revoked) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** How many revocations are known. */
  get size(): number {
    return this.#entries.size;
  }

  /** Stops following the bucket. The copy stays as it is. */
  async close(): Promise<void> {
    await this.#unfollow();
    this.#watch?.stop();
  }

  async #open(): Promise<void> {
    const bucket = await new Kvm(this.#nats.connection).open(BUCKETS.revoked);
    const watch = await BucketWatch.start(bucket, (entry) => this.#apply(entry));
    this.#watch?.stop();
    this.#watch = watch;
  }

  /**
   * Keeps the watch alive. The client's own recovery resumes by sequence, which a bucket that was made anew
   * starts over, and takes up to a minute to notice that a server has lost its consumer.
   */
  #follow(checkEvery: number): void {
    const lost = onceUntil(this.#logger, {
      begins: `the bucket ${BUCKETS.revoked} cannot be followed: keeping the last copy`,
      ends: `the bucket ${BUCKETS.revoked} is followed again`,
    });
    let returned = false;
    const run = async () => {
      if (!this.#nats.isConnected()) return;
      const reopen = returned;
      returned = false;
      try {
        if (reopen || !(await this.#watch?.isCurrent())) await this.#open();
      } catch (error) {
        returned ||= reopen;
        throw error;
      }
    };
    const routine = new Routine({
      everyMs: checkEvery,
      retryMs: RETRY_MS,
      run,
      report: (error) => (error ? lost.begin({ reason: error.message }) : lost.end()),
    });
    const unwatch = this.#nats.watch((connected) => {
      if (!connected) return;
      returned = true;
      routine.soon();
    });
    this.#unfollow = async () => {
      unwatch();
      await routine.stop();
    };
    routine.start();
  }

  #apply(entry: KvEntry): void {
    if (entry.operation !== 'PUT') {
      this.#entries.delete(entry.key);
      return;
    }
    const revocation = revocationOf(entry);
    const audience = decodeToken(entry.key.split('.', 1)[0] as string);
    if (!revocation || audience === undefined) {
      this.#logger.error({ entry: entry.key }, `the bucket ${BUCKETS.revoked} holds an entry that is none`);
      return;
    }
    const known = this.#entries.get(entry.key);
    if (known && reach(known) >= reach(revocation)) return;
    this.#entries.set(entry.key, revocation);
    const covers = (principal: Principal) =>
      keysOf(principal).includes(entry.key) && ends(revocation, principal);
    for (const listener of [...this.#listeners]) listener({ audience, covers });
  }
}

/** The keys under which a token may have been revoked. */
function keysOf({ audience, tokenId, sub }: Principal): string[] {
  return [
    revocationKey.audience(audience),
    ...(sub === null ? [] : [revocationKey.user(audience, sub)]),
    ...(tokenId === undefined ? [] : [revocationKey.token(audience, tokenId)]),
  ];
}

/** A token that does not say when it was issued counts as the oldest there is. */
function ends(revocation: Revocation, { issuedAt = 0 }: Principal): boolean {
  return issuedAt <= reach(revocation);
}

/** Up to which time of issue a revocation reaches, in seconds since 1970; of two, the one that reaches further counts. */
export function reach({ issuedBefore }: Pick<Revocation, 'issuedBefore'>): number {
  return issuedBefore ?? Number.POSITIVE_INFINITY;
}

/** The revocation in an entry of the bucket, undefined for a deletion and for what is none. */
export function revocationOf(entry: KvEntry): Revocation | undefined {
  if (entry.operation !== 'PUT') return undefined;
  try {
    const { issuedBefore, revokedAt } = entry.json<Revocation>();
    return issuedBefore === null || typeof issuedBefore === 'number'
      ? { issuedBefore, revokedAt }
      : undefined;
  } catch {
    return undefined;
  }
}
