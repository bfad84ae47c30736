import { labelled, type Metrics, type Tally } from '@posthorn/service';

/** What auth counts. */
export class AuthMetrics {
  readonly keys: Record<'socket' | 'stream', Tally>;
  /** Questions about API tokens. Gateways remember the answers: each token is asked about once a minute. */
  readonly tokenChecks: Record<'good' | 'refused' | 'expired', Tally>;
  readonly tokensIssued: Tally;

  /** @param revocations how many are in force, asked at each scrape */
  constructor(metrics: Metrics, revocations: () => number) {
    metrics.gauge('auth_revocations', 'Revocations in force', revocations);
    this.keys = metrics.counters(
      'auth_keys_total',
      'Keys handed out',
      labelled('purpose', ['socket', 'stream']),
    );
    this.tokenChecks = metrics.counters(
      'auth_token_checks_total',
      'API tokens that gateways asked about, by the answer',
      labelled('outcome', ['good', 'refused', 'expired']),
    );
    this.tokensIssued = metrics.counter('auth_tokens_issued_total', 'API tokens issued');
  }
}
