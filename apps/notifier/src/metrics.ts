import type { BusObserver } from '@posthorn/bus';
import type { Distribution, Level, Metrics, Tally } from '@posthorn/service';

/** What retention removes; see retention/. */
export type RemovedKind = 'notifications' | 'invitations' | 'departures' | 'entries' | 'activities' | 'seen';

/** What the notifier counts. */
export class NotifierMetrics {
  /** Events that are done. */
  readonly handled: Tally;
  readonly written: Tally;
  readonly batchSize: Distribution;
  readonly emitSeconds: Distribution;
  /** Events in the stream that were not delivered yet. */
  readonly pending: Level;
  /** Entries of timelines that were not there before. */
  readonly timelineWritten: Tally;
  /** As `pending`, for each consumer of the timeline. */
  readonly timelinePending: Record<'activities' | 'joins', Level>;
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
    this.pending = metrics.gauge(
      'notifier_pending_events',
      'Events that wait in the stream for the notifier',
    );
    this.timelineWritten = metrics.counter(
      'timeline_entries_written_total',
      'Entries stored, one per timeline',
    );
    this.timelinePending = metrics.gauges(
      'timeline_pending_events',
      'Events that wait in the stream for the timelines',
      { activities: { topic: 'message:activity' }, joins: { topic: 'community:join' } },
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
