/**
 * The one home of settlement: what becomes of an event after its handler ran (docs/protocols/esn.md,
 * "Notification worker").
 */
import { ProblemError } from '@posthorn/contracts';

export interface PermanentFailureOptions extends ErrorOptions {
  /** What would mend it, told by the consumer for whoever redrives its dead letters: a community's id, … */
  readonly waitsFor?: string;
}

/** A failure that another try cannot mend. The reason goes into the dead letter. */
export class PermanentFailure extends Error {
  /** A short code for whoever lists dead letters: `payload_invalid`, `managers_unknown`, … */
  readonly code: string;
  readonly waitsFor: string | undefined;

  constructor(code: string, reason: string, options: PermanentFailureOptions = {}) {
    super(reason, options);
    this.name = 'PermanentFailure';
    this.code = code;
    this.waitsFor = options.waitsFor;
  }
}

/** Waits between tries, in milliseconds: 1 s, 5 s, 30 s, 2 min, 10 min. After the last one: dead letter. */
export const BACKOFF = [1_000, 5_000, 30_000, 120_000, 600_000] as const;

/** What to do with an event. */
export type Settlement =
  | { readonly kind: 'ack' }
  | { readonly kind: 'retry'; readonly delay: number }
  /** Not the event's fault: it keeps its place and is tried again for as long as it takes. Counts as no try. */
  | { readonly kind: 'hold' }
  | { readonly kind: 'dead'; readonly code: string; readonly reason: string; readonly waitsFor?: string };

/** The settlement of an event whose handler succeeded. */
export const DONE: Settlement = { kind: 'ack' };
/** The settlement of an event that came along with those that are handled. */
export const SKIPPED: Settlement = { kind: 'ack' };

/**
 * How long an event is held before the next try, in milliseconds: twice as long each time, up to 30 s.
 * @param times how often it was held before
 */
export function holdDelay(times: number, backoff: readonly number[] = BACKOFF): number {
  return Math.min((backoff[0] ?? 0) * 2 ** times, 30_000);
}

/**
 * The settlement of a failure.
 * @param tries deliveries so far, this one included
 * @param backoff waits between tries, in milliseconds
 */
export function settleFailure(
  error: unknown,
  tries: number,
  backoff: readonly number[] = BACKOFF,
): Settlement {
  if (error instanceof PermanentFailure) {
    const { code, waitsFor } = error;
    return {
      kind: 'dead',
      code: textOf(code),
      reason: textOf(error.message),
      ...(waitsFor === undefined ? {} : { waitsFor: textOf(waitsFor) }),
    };
  }
  const delay = backoff[tries - 1];
  if (error instanceof ProblemError) {
    // A database or a peer that is away says nothing about the event: an outage of an hour must not turn
    // an hour of events into dead letters.
    if (error.code === 'unavailable') return { kind: 'hold' };
    if (error.status < 500 && error.status !== 429) {
      return { kind: 'dead', code: error.code, reason: reasonOf(error) };
    }
  }
  if (delay === undefined) return { kind: 'dead', code: 'tries_exhausted', reason: reasonOf(error) };
  return { kind: 'retry', delay };
}

function reasonOf(error: unknown): string {
  if (error instanceof ProblemError && error.errors?.length) {
    const findings = error.errors.slice(0, 5).map(({ path, message }) => `${path || '/'} ${message}`);
    return `${error.detail}: ${findings.join('; ')}`;
  }
  return textOf(error instanceof Error ? error.message : error);
}

/** What code without types may have thrown, as text: no handler's throw keeps its event from being settled. */
function textOf(value: unknown): string {
  try {
    return String(value);
  } catch {
    return 'Something was thrown that has no text';
  }
}
