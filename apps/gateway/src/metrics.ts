/** What the gateway counts. Every child is resolved at the start: hot paths add to plain numbers. */
import type { BusObserver, DropReason } from '@posthorn/bus';
import { asProblem, CLOSE, PROBLEMS, type ProblemCode } from '@posthorn/contracts';
import {
  type Distribution,
  type Labels,
  type Level,
  labelled,
  type Metrics,
  type Peak,
  publishMetrics,
  type Tally,
} from '@posthorn/service';
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

/** Ways by which events reach clients. */
const THROUGH = ['session', 'event_stream', 'poll'] as const;

/** What callers show of themselves: a JWT, an API token, the key of a socket. */
const CREDENTIALS = ['jwt', 'api_token', 'socket_key'] as const;
type Credential = (typeof CREDENTIALS)[number];
const JUDGEMENTS = ['good', 'refused', 'expired', 'limited', 'unavailable'] as const;
type Judgement = (typeof JUDGEMENTS)[number];

/** From an event's publication until it was written, in seconds. */
const AGES = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export class GatewayMetrics {
  /** Open sockets. */
  readonly connections: Level;
  readonly opened: Record<'socket' | 'event_stream', Tally>;
  readonly subscriptions: Level;
  readonly framesIn: Tally;
  readonly bytesIn: Tally;
  /** Bytes written to sockets and event streams. */
  readonly bytesOut: Tally;
  /** Bytes that waited for one peer. */
  readonly buffered: Peak;
  readonly deliveries: Record<(typeof THROUGH)[number], Tally>;
  /** Open event streams. */
  readonly streams: Level;
  /** Polls that wait. */
  readonly polls: Level;
  readonly pollPages: Tally;
  readonly pollAnswers: Record<'message' | 'nothing' | 'gone', Tally>;
  readonly errors: Record<ProblemCode, Tally>;
  readonly addressRefusals: Record<'open' | 'rate', Tally>;
  readonly closes: Record<keyof typeof CLOSE, Tally>;
  readonly resumes: Record<ResumeOutcome, Tally>;
  readonly usageReports: Record<'done' | 'failed', Tally>;
  readonly bus: BusObserver;

  readonly #checks: Record<`${Credential} ${Judgement}`, Tally>;
  readonly #ages: Distribution;

  /**
   * @param feeds how many filters the hub follows, asked at each scrape
   * @param sendBuffer how many bytes may wait for one peer
   */
  constructor(metrics: Metrics, feeds: () => number, sendBuffer: number) {
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
    this.opened = metrics.counters(
      'connections_opened_total',
      'Connections that have begun, those of POST /v1/stream as event streams',
      labelled('transport', ['socket', 'event_stream']),
    );
    this.subscriptions = metrics.gauge(
      'subscriptions',
      'Topics and patterns that sessions are subscribed to',
    );
    this.framesIn = metrics.counter('frames_in_total', 'Frames received from sessions');
    this.bytesIn = metrics.counter('received_bytes_total', 'Bytes of the frames received from sessions');
    this.bytesOut = metrics.counter('sent_bytes_total', 'Bytes written to sockets and event streams');
    this.deliveries = metrics.counters(
      'deliveries_total',
      'Events handed to clients, one for each client that gets it, by what it came through',
      labelled('through', THROUGH),
    );
    this.buffered = metrics.peak(
      'send_buffer_high_water_bytes',
      'The most that waited for one peer, in this minute and the one before',
    );
    metrics.gauge('send_buffer_limit_bytes', 'What may wait for one peer: SEND_BUFFER', () => sendBuffer);
    this.#ages = metrics.histogram(
      'event_age_seconds',
      'From publication until written, of the first event of each write-out (docs/operations.md)',
      AGES,
    );
    const feedEvents = metrics.counter('feed_events_total', 'Events handed to feeds, live and repaired');
    const replayed = metrics.counter(
      'replayed_events_total',
      'Events read from the stream for those who came back or later',
    );
    this.#checks = metrics.counters(
      'credential_checks_total',
      'Credentials looked at, by what was found. A revocation of a JWT or a key is found later: problems_total',
      judgements(),
    );
    this.errors = metrics.counters(
      'problems_total',
      'Errors told to callers, by code of the catalogue',
      labelled('code', Object.keys(PROBLEMS) as ProblemCode[]),
    );
    this.addressRefusals = metrics.counters(
      'address_refusals_total',
      'Connections and requests refused because of their address: too many open, or opened too fast',
      labelled('reason', ['open', 'rate']),
    );
    this.closes = metrics.counters(
      'closes_total',
      'Sockets and event streams that the server ended, by reason and its close code',
      closes(),
    );
    this.resumes = metrics.counters(
      'resumes_total',
      'Topics and patterns resumed from a position: out of memory, out of the stream, or with a loss',
      labelled('outcome', ['window', 'store', 'lost']),
    );
    this.usageReports = metrics.counters(
      'usage_reports_total',
      "Reports of audiences' usage to the registry, by outcome",
      labelled('outcome', ['done', 'failed']),
    );
    const dropped: Record<DropReason, Tally> = metrics.counters(
      'dropped_total',
      'Live copies that were not delivered: forged, late, or no events',
      labelled('reason', DROPS),
    );
    const gaps = metrics.counter('gaps_total', 'Live copies that showed that one before them did not come');
    const repaired = metrics.counter('repaired_total', 'Events read from the stream because no copy came');
    const repairing = metrics.gauge('repairs', 'Topics that wait for the stream to say what is missing');
    const unanswered = metrics.counter(
      'repairs_unanswered_total',
      'Questions about what is missing that the leader of the stream did not answer',
    );
    this.bus = {
      ...publishMetrics(metrics),
      delivered: () => feedEvents.inc(),
      replayed: () => replayed.inc(),
      dropped: (reason) => dropped[reason].inc(),
      gap: () => gaps.inc(),
      repaired: () => repaired.inc(),
      repairing: (change) => repairing.inc(change),
      unanswered: () => unanswered.inc(),
      settled: () => {},
    };
  }

  /** The first event of what was just written, by its publication; what is no moment is not counted. */
  written(published: string): void {
    const age = (Date.now() - Date.parse(published)) / 1_000;
    if (!Number.isNaN(age)) this.#ages.observe(Math.max(0, age));
  }

  /** Counts what a check of a credential finds. */
  async checked<T>(credential: Credential, check: Promise<T>): Promise<T> {
    try {
      const result = await check;
      this.#checks[`${credential} good`].inc();
      return result;
    } catch (error) {
      this.#checks[`${credential} ${judgementOf(asProblem(error).code)}`].inc();
      throw error;
    }
  }
}

function judgementOf(code: ProblemCode): Judgement {
  if (code === 'token_expired') return 'expired';
  if (code === 'rate_limited') return 'limited';
  return code === 'unavailable' ? 'unavailable' : 'refused';
}

function judgements() {
  const sets = CREDENTIALS.flatMap((credential) =>
    JUDGEMENTS.map((outcome) => [`${credential} ${outcome}`, { credential, outcome }] as const),
  );
  return Object.fromEntries<Labels>(sets) as Record<`${Credential} ${Judgement}`, Labels>;
}

function closes() {
  const sets = Object.entries(CLOSE).map(([reason, { code }]) => [reason, { reason, code: String(code) }]);
  return Object.fromEntries(sets) as Record<keyof typeof CLOSE, Labels>;
}
