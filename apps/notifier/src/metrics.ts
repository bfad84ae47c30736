import type { BusObserver } from '@posthorn/bus';
import {
  type Distribution,
  type Labels,
  type Level,
  labelled,
  type Metrics,
  publishMetrics,
  type Tally,
} from '@posthorn/service';

/** What retention removes; see retention/. */
export type RemovedKind = 'notifications' | 'invitations' | 'departures' | 'entries' | 'activities' | 'seen';

/** What waits for a consumer. */
export interface Backlog {
  /** Events, those in work included. */
  readonly pending: Level;
  /** Events that were given to a process and are not settled. */
  readonly inWork: Level;
  /** Seconds. */
  readonly lag: Level;
}

const CONSUMERS = ['notifications', 'activities', 'joins'] as const;

/** What a durable consumer is for. Its own name holds the instance's. */
export type ConsumerKind = (typeof CONSUMERS)[number];

const OUTCOMES = {
  ack: 'handled',
  skip: 'skipped',
  retry: 'retried',
  hold: 'held',
  dead: 'dead',
} as const;
type Settled = keyof typeof OUTCOMES;

/** Codes of dead letters that are told apart; a handler's code may be any text. */
const CODES = ['payload_invalid', 'managers_unknown', 'topic_unhandled', 'tries_exhausted', 'other'] as const;
type Code = (typeof CODES)[number];

/** What the notifier counts. */
export class NotifierMetrics {
  readonly written: Tally;
  readonly batchSize: Distribution;
  readonly emitSeconds: Distribution;
  /** What waits for each consumer. */
  readonly backlogs: Record<ConsumerKind, Backlog>;
  /** Entries of timelines that were not there before. */
  readonly timelineWritten: Tally;
  /** Rows that retention has removed. */
  readonly removed: Record<RemovedKind, Tally>;
  /** Dead letters that wait for somebody, and those on the bus that are not listed yet. */
  readonly letters: { readonly waiting: Level; readonly unlisted: Level; readonly redriven: Tally };
  readonly observer: Partial<BusObserver>;
  readonly #kinds = new Map<string, ConsumerKind>();

  constructor(metrics: Metrics) {
    const events = metrics.counters(
      'notifier_events_total',
      'Tries of events by what became of them: held while what they need is away, retried after any other failure',
      crossed(Object.keys(OUTCOMES) as Settled[], (kind) => ({ outcome: OUTCOMES[kind] })),
    );
    const dead = metrics.counters(
      'dead_letters_total',
      'Events given up, by why',
      crossed(CODES, (code) => ({ code })),
    );
    this.written = metrics.counter('notifications_written_total', 'Notifications stored, one per recipient');
    this.batchSize = metrics.histogram(
      'notifier_batch_events',
      'Events in one transaction',
      [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000],
    );
    this.emitSeconds = metrics.histogram(
      'notifier_emit_seconds',
      "From a batch's commit until its notifications are stored on the bus",
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
    );
    const pending = metrics.gauges(
      'consumer_pending_events',
      'Events in the stream that are not handled yet, those in work included',
      labelled('consumer', CONSUMERS),
    );
    const inWork = metrics.gauges(
      'consumer_in_work_events',
      'Events that were given to a process and are not settled',
      labelled('consumer', CONSUMERS),
    );
    const lag = metrics.gauges(
      'consumer_lag_seconds',
      'How long the oldest event that is not handled has been in the stream',
      labelled('consumer', CONSUMERS),
    );
    const backlog = (kind: ConsumerKind): Backlog => ({
      pending: pending[kind],
      inWork: inWork[kind],
      lag: lag[kind],
    });
    this.backlogs = {
      notifications: backlog('notifications'),
      activities: backlog('activities'),
      joins: backlog('joins'),
    };
    this.timelineWritten = metrics.counter(
      'timeline_entries_written_total',
      'Entries stored, one per timeline',
    );
    this.removed = metrics.counters('retention_removed_total', 'Rows removed because of their age', {
      notifications: { kind: 'notification' },
      invitations: { kind: 'invitation' },
      departures: { kind: 'departure' },
      entries: { kind: 'timeline_entry' },
      activities: { kind: 'activity' },
      seen: { kind: 'timeline_seen' },
    });
    this.letters = {
      waiting: metrics.gauge('dead_letters_waiting', 'Dead letters that nobody has redriven or deleted'),
      unlisted: metrics.gauge(
        'dead_letters_unlisted',
        'Dead letters on the bus that are not in the list yet',
      ),
      redriven: metrics.counter('dead_letters_redriven_total', 'Dead letters given to their consumers again'),
    };
    this.observer = {
      ...publishMetrics(metrics),
      settled: (outcome, consumer, code) => {
        const kind = this.#kinds.get(consumer);
        if (!kind) return;
        events[`${kind} ${outcome}`].inc();
        if (outcome === 'dead') dead[`${kind} ${codeOf(code)}`].inc();
      },
    };
  }

  /** Says what a durable consumer is for, ahead of its first event. */
  know(consumer: string, kind: ConsumerKind): void {
    this.#kinds.set(consumer, kind);
  }
}

function codeOf(code: string | undefined): Code {
  return CODES.find((known) => known === code) ?? 'other';
}

/** A child for each consumer and value. */
function crossed<K extends string>(values: readonly K[], labels: (value: K) => Labels) {
  const sets = CONSUMERS.flatMap((consumer) =>
    values.map((value): [string, Labels] => [`${consumer} ${value}`, { consumer, ...labels(value) }]),
  );
  return Object.fromEntries(sets) as Record<`${ConsumerKind} ${K}`, Labels>;
}
