/** What the gateway counts. Every child is resolved at the start: hot paths add to plain numbers. */
import type { BusObserver, DropReason } from '@posthorn/bus';
import { CLOSE, PROBLEMS, type ProblemCode } from '@posthorn/contracts';
import type { Labels, Level, Metrics, Tally } from '@posthorn/service';
import type { ResumeOutcome } from './hub/catch-up.js';

const DROPS = [
  'unsequenced',
  'late',
  'no_topic',
  'not_ephemeral',
  'not_json',
  'not_object',
  'schema',
] as const;

export class GatewayMetrics {
  readonly connections: Level;
  readonly framesIn: Tally;
  /** Open event streams. */
  readonly streams: Level;
  /** Polls that wait. */
  readonly polls: Level;
  readonly pollPages: Tally;
  readonly pollAnswers: Record<'message' | 'nothing' | 'gone', Tally>;
  readonly eventsOut: Tally;
  readonly errors: Record<ProblemCode, Tally>;
  readonly addressRefusals: Record<'open' | 'rate', Tally>;
  readonly closes: Record<keyof typeof CLOSE, Tally>;
  readonly resumes: Record<ResumeOutcome, Tally>;
  readonly usageReports: Record<'done' | 'failed', Tally>;
  readonly bus: BusObserver;

  /** @param feeds how many filters the hub follows, asked at each scrape */
  constructor(metrics: Metrics, feeds: () => number) {
    this.connections = metrics.gauge('connections', 'Open WebSocket connections');
    metrics.gauge('feeds', 'Topics and patterns that at least one connection listens to', feeds);
    this.streams = metrics.gauge('streams', 'Open event streams');
    this.polls = metrics.gauge('polls', 'Polls that wait for a message');
    this.pollPages = metrics.counter(
      'poll_pages_total',
      'Pages that polls have read from the stream: each serves many polls',
    );
    this.pollAnswers = metrics.counters('polls_total', 'Polls by what became of them', {
      message: { outcome: 'message' },
      nothing: { outcome: 'nothing' },
      gone: { outcome: 'gone' },
    });
    this.framesIn = metrics.counter('frames_in_total', 'Frames received from sockets');
    this.eventsOut = metrics.counter('feed_events_total', 'Events handed to feeds');
    this.errors = metrics.counters(
      'problems_total',
      'Errors told to callers, by code of the catalogue',
      labelSets(Object.keys(PROBLEMS) as ProblemCode[], 'code'),
    );
    this.addressRefusals = metrics.counters(
      'address_refusals_total',
      'Connections and requests refused because of their address: too many open, or opened too fast',
      labelSets(['open', 'rate'], 'reason'),
    );
    this.closes = metrics.counters(
      'closes_total',
      'Sockets and event streams that the server ended, by reason',
      labelSets(Object.keys(CLOSE) as (keyof typeof CLOSE)[], 'reason'),
    );
    this.resumes = metrics.counters(
      'resumes_total',
      'Topics and patterns resumed from a position: out of memory, out of the stream, or with a loss',
      labelSets(['window', 'store', 'lost'] as const, 'outcome'),
    );
    this.usageReports = metrics.counters(
      'usage_reports_total',
      "Reports of audiences' usage to the registry, by outcome",
      labelSets(['done', 'failed'], 'outcome'),
    );
    const published = metrics.counters('published_total', 'Events taken: stored, or ephemeral and sent on', {
      local: { scope: 'local' },
      global: { scope: 'global' },
    });
    const dropped: Record<DropReason, Tally> = metrics.counters(
      'dropped_total',
      'Live copies that were not delivered: forged, late, or no events',
      labelSets(DROPS, 'reason'),
    );
    const gaps = metrics.counter('gaps_total', 'Live copies that showed that one before them did not come');
    const repaired = metrics.counter('repaired_total', 'Events read from the stream because no copy came');
    this.bus = {
      published: (scope) => published[scope].inc(),
      refused: () => {},
      delivered: () => this.eventsOut.inc(),
      dropped: (reason) => dropped[reason].inc(),
      gap: () => gaps.inc(),
      repaired: () => repaired.inc(),
      settled: () => {},
    };
  }
}

function labelSets<K extends string>(keys: readonly K[], label: string): Record<K, Labels> {
  return Object.fromEntries(keys.map((key) => [key, { [label]: key }])) as Record<string, Labels> as Record<
    K,
    Labels
  >;
}
