import type { BusObserver } from '@posthorn/bus';
import type { Distribution, Level, Metrics, Tally } from '@posthorn/service';

/** What retention removes; see retention/. */
export type RemovedKind = 'notifications' | 'invitations' | 'departures' | 'entries' | 'activities' | 'seen';

/** What waits for a consumer. */
export interface Backlog {
  /** Events. */
  readonly pending: Level;
  /** Seconds. */
  readonly lag: Level;
}

const CONSUMERS = {
  notifications: { consumer: 'notifications' },
  activities: { consumer: 'activities' },
  joins: { consumer: 'joins' },
} as const;

type ConsumerKind = keyof typeof CONSUMERS;

/** What the notifier counts. */
export class NotifierMetrics {
  /** Events that are done. */
  readonly handled: Tally;
  readonly written: Tally;
  readonly batchSize: Distribution;
  readonly emitSeconds: Distribution;
  /** What waits for each consumer. */
  readonly backlogs: Record<ConsumerKind, Backlog>;
  /** Entries of timelines that were not there before. */
  readonly timelineWritten: Tally;
  /** Rows that retention has removed. */
  readonly removed: Record<RemovedKind, Tally>;
  /** For the bus: what became of the events that are not done. */
  readonly observer: Partial<BusObserver>;

  constructor(metrics: Metrics) {
    const events = metrics.counters('notifier_events_total', 'Events by what became of them', {
      handled: { outcome: 'handled' },
      retried: { outcome: 'retried' },
      held: { outcome: 'held' },
      dead: { outcome: 'dead' },
    });
    this.handled = events.handled;
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
      CONSUMERS,
    );
    const lag = metrics.gauges(
      'consumer_lag_seconds',
      'How long the oldest event that is not handled has been in the stream',
      CONSUMERS,
    );
    const backlog = (kind: ConsumerKind): Backlog => ({ pending: pending[kind], lag: lag[kind] });
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
    const settled = { ack: undefined, retry: events.retried, hold: events.held, dead: events.dead };
    this.observer = { settled: (outcome) => settled[outcome]?.inc() };
  }
}
