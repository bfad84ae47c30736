import { PROBLEMS, type Scope } from '@posthorn/contracts';
import { labelled, type Metrics, type Tally } from './metrics.js';

/** How long JetStream may take to acknowledge, in seconds. */
const ACKNOWLEDGED = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** What a process counts of what it publishes: a part of the observer of its bus. */
export function publishMetrics(metrics: Metrics) {
  const published = metrics.counters(
    'published_total',
    'Events taken: stored, or ephemeral and sent on',
    labelled<Scope>('scope', ['local', 'global']),
  );
  const failed: Record<string, Tally> = metrics.counters(
    'publish_failures_total',
    'Publishes that came to nothing, by code of the catalogue',
    labelled('code', Object.keys(PROBLEMS)),
  );
  const acknowledged = metrics.histogram(
    'publish_ack_seconds',
    'From sending an event to JetStream until its acknowledgement',
    ACKNOWLEDGED,
  );
  return {
    published: (scope: Scope) => published[scope].inc(),
    refused: (code: string) => failed[code]?.inc(),
    acknowledged: (seconds: number) => acknowledged.observe(seconds),
  };
}
