import { setTimeout as sleep } from 'node:timers/promises';
import { withTransaction } from '@posthorn/database';
import type { DataSource } from 'typeorm';
import type { InboxUpdates } from '../inbox/inbox-updates.js';
import type { NotifierMetrics, RemovedKind } from '../metrics.js';
import type { Expiry } from './expiry.js';
import {
  type Removal,
  type Remove,
  removeActivities,
  removeDepartures,
  removeInvitations,
  removeNotifications,
  removeSeen,
} from './removals.js';

/** Rows of one transaction, at most: one update tells a user of so many. */
const BATCH = 500;

/** How long the pause after a batch is, measured by the batch; and at least, in ms. */
const PAUSE_FACTOR = 2;
const PAUSE_MS = 20;

/** One replica at a time: its lock, until the end of each transaction. */
const LOCK = 'posthorn.notifier.retention';

export interface RetentionOptions {
  readonly source: DataSource;
  readonly updates: Pick<InboxUpdates, 'announce'>;
  readonly metrics: Pick<NotifierMetrics, 'removed'>;
  readonly notifications: Expiry;
  readonly timelines: Expiry;
  /** No event from before this place can come from the stream any more, in nanoseconds since 1970. */
  readonly deliverableSince: () => Promise<bigint>;
  /** Rows of one transaction, at most. Default: 500. */
  readonly batch?: number;
}

/** Removes what is too old to keep, in small batches with pauses: whoever writes meanwhile keeps its latency. */
export class Retention {
  readonly #options: RetentionOptions;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /**
   * Goes on until nothing old is left, the signal is aborted, or another replica is found to be at it. Each batch
   * is a transaction: whenever it is broken off, what is there is whole.
   */
  async run(signal?: AbortSignal): Promise<void> {
    const { notifications, timelines, deliverableSince } = this.#options;
    const inboxes = notifications.horizon;
    const entries = timelines.horizon;
    const departures = least(inboxes, await deliverableSince());
    // What a user has seen goes after the entries: the other way round these would be unread again.
    const steps: readonly (readonly [Remove, bigint])[] = [
      [removeNotifications, inboxes],
      [removeInvitations, inboxes],
      [removeDepartures, departures],
      [removeActivities, entries],
      [removeSeen, entries],
    ];
    for (const [remove, before] of steps) {
      for (let more = true; more; ) {
        if (signal?.aborted) return;
        const began = performance.now();
        const removal = await this.#batch(remove, before);
        if (!removal) return;
        more = removal.more;
        const pause = Math.max(PAUSE_MS, PAUSE_FACTOR * (performance.now() - began));
        if (more)
          await sleep(pause, undefined, { ...(signal ? { signal } : {}), ref: false }).catch(() => {});
      }
    }
  }

  /** One batch, told and counted; undefined where another replica has the lock. */
  async #batch(remove: Remove, before: bigint): Promise<Removal | undefined> {
    const { source, updates, metrics, batch = BATCH } = this.#options;
    const removal = await withTransaction(source, async (tx) => {
      const [{ mine }]: [{ mine: boolean }] = await tx.query(
        'SELECT pg_try_advisory_xact_lock(hashtext($1)) AS mine',
        [LOCK],
      );
      return mine ? remove(tx, before, batch) : undefined;
    });
    if (!removal) return undefined;
    for (const [kind, count] of Object.entries(removal.removed))
      metrics.removed[kind as RemovedKind].inc(count);
    await updates.announce(removal.updates);
    return removal;
  }
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
