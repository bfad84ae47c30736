import { type Finding, finding, ok } from './finding.js';

/** Beyond it, in milliseconds, what goes by time goes wrong now and then; and beyond the other, visibly. */
const NOTICEABLE = 1_000;
const WRONG = 30_000;

/** What another clock said, and when it was asked, both in milliseconds of the epoch. */
export interface ClockReading {
  /** This machine's time before the question and after the answer. */
  readonly asked: number;
  readonly answered: number;
  readonly theirs: number;
}

/**
 * Compares clocks. The difference is known no better than the time that the answer took: what lies within counts as none.
 * @param whose as in "the clock of …"
 */
export function clockFinding(
  id: 'clock.database' | 'clock.nats',
  whose: string,
  { asked, answered, theirs }: ClockReading,
): Finding {
  const ahead = Math.max(0, theirs - answered);
  const behind = Math.max(0, asked - theirs);
  const skew = Math.max(ahead, behind);
  if (skew <= NOTICEABLE) {
    const bound = Math.ceil(Math.max(Math.abs(theirs - asked), Math.abs(answered - theirs)));
    return ok(id, `within ${bound} ms of ${whose}`);
  }
  return finding(
    id,
    skew > WRONG ? 'failure' : 'warning',
    `the clock of ${whose} is ${(skew / 1_000).toFixed(1)} s ${ahead > 0 ? 'ahead of' : 'behind'} this machine's`,
    'Keep both clocks by NTP (`timedatectl status`, `chronyc tracking`), on every machine of NATS, PostgreSQL and the apps.',
  );
}
