/**
 * From events to timelines: what queued up while a batch was running is the next batch. An event is done once
 * its entries are stored.
 */
import type { BusEvent, Delivery } from '@posthorn/bus';
import { databaseAway } from '@posthorn/database';
import { refusedByDatabase } from '../failure.js';
import type { NotifierMetrics } from '../metrics.js';
import type { Expiry } from '../retention/expiry.js';
import { eventKey } from '../worker/writer.js';
import type { Activity } from './activity.js';
import type { Happening, TimelineStore } from './store.js';

/** Entries and bytes of content that a batch takes, unless one event alone has more. */
const BATCH_ENTRIES = 2_000;
const BATCH_BYTES = 4 * 1024 * 1024;

interface Job {
  readonly happening: Happening;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface TimelineWriterOptions {
  readonly store: TimelineStore;
  readonly metrics: NotifierMetrics;
  readonly expiry: Expiry;
  /** Events in one transaction at most. */
  readonly batchSize: number;
}

export class TimelineWriter {
  readonly #options: TimelineWriterOptions;
  readonly #queue: Job[] = [];
  #running = false;

  constructor(options: TimelineWriterOptions) {
    this.#options = options;
  }

  /**
   * Puts an activity on the timelines of its targets; resolves once that is stored, and at once for what is too
   * old to keep. Rejects as settlement.ts expects: `unavailable` where the database is away, PermanentFailure
   * where another try cannot help.
   */
  async write(
    { audience, id }: Pick<BusEvent, 'audience' | 'id'>,
    { storedAt }: Delivery,
    activity: Activity,
  ): Promise<void> {
    if (activity.targets.length > 0 && !this.#options.expiry.isExpired(storedAt)) {
      const happening: Happening = { ...activity, audience, eventId: eventKey(id), ordinal: storedAt };
      await new Promise<void>((resolve, reject) => {
        this.#queue.push({ happening, resolve, reject });
        if (!this.#running) void this.#run();
      });
    }
  }

  async #run(): Promise<void> {
    this.#running = true;
    // The events that this turn of the event loop still delivers join the first batch.
    await new Promise(setImmediate);
    while (this.#queue.length > 0) await this.#store(this.#take());
    this.#running = false;
  }

  #take(): Job[] {
    let entries = 0;
    let bytes = 0;
    let count = 0;
    for (const { happening } of this.#queue) {
      entries += happening.targets.length;
      bytes += happening.content.length;
      if (count > 0 && (entries > BATCH_ENTRIES || bytes > BATCH_BYTES)) break;
      count += 1;
      if (count === this.#options.batchSize) break;
    }
    return this.#queue.splice(0, count);
  }

  /** Stores a batch; where one event spoils it, halves find out which, and its neighbours are stored. */
  async #store(batch: readonly Job[]): Promise<void> {
    try {
      const written = await this.#options.store.apply(batch.map(({ happening }) => happening));
      this.#options.metrics.timelineWritten.inc(written);
      for (const { resolve } of batch) resolve();
    } catch (error) {
      const away = databaseAway(error);
      if (!away && batch.length > 1) {
        const middle = Math.ceil(batch.length / 2);
        await this.#store(batch.slice(0, middle));
        await this.#store(batch.slice(middle));
        return;
      }
      for (const { reject } of batch) reject(away ?? refusedByDatabase(error) ?? error);
    }
  }
}
