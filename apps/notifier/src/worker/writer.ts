/**
 * From events to inboxes: what queued up while a batch was running is the next batch. An event is done once
 * its notifications are stored, its recipients were told, and that is noted; whatever fails before is done
 * again from where it stood, under the same ids.
 */
import { createHash } from 'node:crypto';
import { type BusEvent, type Delivery, PermanentFailure } from '@posthorn/bus';
import type { Bus, Draft } from '@posthorn/bus/platform';
import {
  EVENT_ID_LIMIT,
  isTraceparent,
  PAYLOAD_LIMIT,
  ProblemError,
  type Span,
  type Tracer,
} from '@posthorn/contracts';
import { databaseAway } from '@posthorn/database';
import { refusedByDatabase } from '../failure.js';
import type { RecordedUpdate } from '../inbox/inbox-changes.js';
import type { InboxUpdates } from '../inbox/inbox-updates.js';
import { draftOf } from '../inbox/telling.js';
import type { NotifierMetrics } from '../metrics.js';
import type { Expiry } from '../retention/expiry.js';
import type { Wanted } from './notice.js';
import { contentJson } from './notifications.js';
import type { Store } from './store.js';
import type { Stored, Work } from './work.js';

/** What a notification has beside its content (ids, flags, time), in bytes, at most. */
const FRAME_BYTES = 4_096;

/**
 * Bytes of content that the notifications of one event have at most, all recipients together: more would not be
 * written within the time that a statement has, however often it is tried.
 */
const EVENT_BYTES = 64 * 1024 * 1024;

/** Recipients and bytes of content, for all of them, that a batch takes, unless one event alone has more. */
const BATCH_RECIPIENTS = 2_000;
const BATCH_BYTES = 16 * 1024 * 1024;

/** How many publishes are in flight at once. */
const PUBLISHES = 1_000;

interface Job {
  readonly work: Work;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What became of the jobs of a batch, and what is to be told after what they have created. */
interface Outcome {
  readonly stored: ReadonlyMap<Job, Stored>;
  readonly updates: readonly RecordedUpdate[];
}

/** A new notification of which its recipient is told, and the jobs that wait for it. */
interface Telling {
  readonly id: string;
  readonly draft: Draft;
  readonly jobs: Set<Job>;
}

export interface WriterOptions {
  readonly store: Store;
  readonly bus: Pick<Bus, 'publish'>;
  readonly updates: InboxUpdates;
  readonly metrics: NotifierMetrics;
  readonly expiry: Expiry;
  readonly tracer?: Tracer | undefined;
  /** Events in one transaction at most. */
  readonly batchSize: number;
}

export class Writer {
  readonly #options: WriterOptions;
  readonly #queue: Job[] = [];
  #running = false;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /**
   * Does what an event wants; resolves once all of it is stored and told. What is too old to keep makes no
   * notification and changes no invitation. Rejects as settlement.ts expects:
   * `unavailable` where database or bus are away, PermanentFailure where another try cannot help.
   */
  async write(event: BusEvent, delivery: Delivery, asked: Wanted): Promise<void> {
    const wanted = this.#options.expiry.isExpired(delivery.storedAt) ? expired(asked, delivery) : asked;
    const traceparent = isTraceparent(event.traceparent) ? event.traceparent : undefined;
    const work: Work = {
      audience: event.audience,
      eventId: eventKey(event.id),
      ordinal: delivery.storedAt,
      redelivered: delivery.tries > 1 || delivery.redriven,
      traceparent,
      wanted,
      content: contentOf(wanted),
    };
    return new Promise((resolve, reject) => {
      this.#queue.push({ work, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    // The events that this turn of the event loop still delivers join the first batch.
    await new Promise(setImmediate);
    let telling: Promise<void> = Promise.resolve();
    while (this.#queue.length > 0) {
      const batch = this.#take();
      this.#options.metrics.batchSize.observe(batch.length);
      const spans = this.#spans(batch);
      const stored = await this.#store(batch);
      for (const [job, span] of spans) finish(span, stored.stored.get(job));
      // The next batch is stored while this one is told: the database and the bus work side by side.
      await telling;
      telling = this.#tell(stored);
    }
    this.#running = false;
    await telling;
  }

  /** A batch is in the trace of each event that it writes: what of it is that event's own is told there. */
  #spans(batch: readonly Job[]): readonly (readonly [Job, Span])[] {
    const { tracer } = this.#options;
    if (!tracer) return [];
    const spans: (readonly [Job, Span])[] = [];
    for (const job of batch) {
      if (job.work.traceparent === undefined) continue;
      const span = tracer.start('write inbox', {
        kind: 'client',
        parent: job.work.traceparent,
        attributes: {
          'db.system.name': 'postgresql',
          'db.namespace': 'notifier',
          'db.operation.batch.size': batch.length,
        },
      });
      if (span) spans.push([job, span]);
    }
    return spans;
  }

  #take(): Job[] {
    let recipients = 0;
    let bytes = 0;
    let count = 0;
    for (const { work } of this.#queue) {
      const to = recipientCount(work.wanted);
      recipients += to;
      bytes += to * (work.content?.length ?? 0);
      if (count > 0 && (recipients > BATCH_RECIPIENTS || bytes > BATCH_BYTES)) break;
      count += 1;
      if (count === this.#options.batchSize) break;
    }
    return this.#queue.splice(0, count);
  }

  /** Stores a batch; where one event spoils it, halves find out which, and its neighbours are stored. */
  async #store(batch: readonly Job[]): Promise<Outcome> {
    try {
      const { stored, updates } = await this.#options.store.apply(batch.map(({ work }) => work));
      this.#options.metrics.written.inc(stored.reduce((sum, { written }) => sum + written, 0));
      return { stored: new Map(batch.map((job, i) => [job, stored[i]!])), updates };
    } catch (error) {
      const away = databaseAway(error);
      if (!away && batch.length > 1) {
        const middle = Math.ceil(batch.length / 2);
        const first = await this.#store(batch.slice(0, middle));
        const second = await this.#store(batch.slice(middle));
        return {
          stored: new Map([...first.stored, ...second.stored]),
          updates: [...first.updates, ...second.updates],
        };
      }
      for (const job of batch) job.reject(away ?? refusedByDatabase(error) ?? error);
      return { stored: new Map(), updates: [] };
    }
  }

  /** Tells the recipients, notes that they were told, and settles the jobs. Never rejects. */
  async #tell({ stored, updates }: Outcome): Promise<void> {
    const failures = new Map<Job, unknown>();
    try {
      for (const [job, { failure }] of stored) if (failure) failures.set(job, failure);
      const began = performance.now();
      const told = await this.#publish(tellings(stored), failures);
      if (told.length > 0) {
        this.#options.metrics.emitSeconds.observe((performance.now() - began) / 1_000);
        await this.#options.store.markEmitted(told.map(({ id }) => id));
      }
      await this.#options.updates.announce(updates);
    } catch (error) {
      for (const job of stored.keys()) job.reject(databaseAway(error) ?? error);
      return;
    }
    for (const job of stored.keys()) {
      if (failures.has(job)) job.reject(failures.get(job));
      else job.resolve();
    }
  }

  /** Publishes in order; returns what is stored, and notes which jobs have failed with what is not. */
  async #publish(tellings: readonly Telling[], failures: Map<Job, unknown>): Promise<Telling[]> {
    const told: Telling[] = [];
    let away: ProblemError | undefined;
    for (let start = 0; start < tellings.length; start += PUBLISHES) {
      const some = tellings.slice(start, start + PUBLISHES);
      const results = await Promise.allSettled(
        some.map(({ draft }) => (away ? Promise.reject(away) : this.#options.bus.publish(draft))),
      );
      results.forEach((result, i) => {
        const telling = some[i]!;
        if (result.status === 'fulfilled') {
          told.push(telling);
          return;
        }
        const { reason } = result;
        if (reason instanceof ProblemError && reason.code === 'unavailable') away = reason;
        for (const job of telling.jobs) failures.set(job, reason);
      });
    }
    return told;
  }
}

/** Ends the span of what a transaction has written for one event: nothing where it came to nothing. */
function finish(span: Span, stored: Stored | undefined): void {
  if (stored) span.set({ 'posthorn.notifications': stored.written });
  span.end(stored && !stored.failure ? undefined : 'not_stored');
}

/** What all jobs of a batch have to tell, each once: two events of one id share their notifications. */
function tellings(stored: ReadonlyMap<Job, Stored>): Telling[] {
  const tellings = new Map<string, Telling>();
  for (const [job, { created }] of stored) {
    for (const { id, audience, message } of created) {
      const known = tellings.get(id);
      if (known) {
        known.jobs.add(job);
        continue;
      }
      const { traceparent } = job.work;
      const draft = draftOf({ topic: 'usernotification:created', id, audience, message, traceparent });
      tellings.set(id, { id, draft, jobs: new Set([job]) });
    }
  }
  return [...tellings.values()];
}

/**
 * What is left of an event that is too old to keep: who belongs to a community counts however long ago it began.
 * A redriven event has said so when it was first tried, and what it said may be forgotten since.
 */
function expired({ membership }: Wanted, { redriven }: Delivery): Wanted {
  return membership && !redriven ? { membership } : {};
}

/** An event's id as part of a key: a foreign publisher may have sent any text. */
export function eventKey(id: string): string {
  if (id.length <= EVENT_ID_LIMIT && !id.includes('\0')) return id;
  return createHash('sha256').update(id).digest('hex');
}

/** How many an event notifies; one where only the database knows. */
function recipientCount({ notice }: Wanted): number {
  return notice && 'length' in notice.recipients ? notice.recipients.length : 1;
}

/** The content as it is stored, checked for what no bus takes, and no transaction. */
function contentOf(wanted: Wanted): string | undefined {
  const { notice } = wanted;
  if (!notice) return undefined;
  let content: string;
  try {
    content = contentJson(notice.content);
  } catch (cause) {
    // JSON.stringify() recurses where JSON.parse() does not.
    throw new PermanentFailure('payload_invalid', 'The payload is nested too deeply', { cause });
  }
  const bytes = Buffer.byteLength(content);
  if (bytes + FRAME_BYTES > PAYLOAD_LIMIT.service) {
    throw new ProblemError('payload_too_large', 'The notification would be larger than 1 MiB');
  }
  if (bytes * recipientCount(wanted) > EVENT_BYTES) {
    throw new ProblemError('payload_too_large', 'The notifications would be larger than 64 MiB in all');
  }
  return content;
}
