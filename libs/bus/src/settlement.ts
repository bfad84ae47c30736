/**
 * The one home of settlement: what becomes of an event after its handler ran (docs/protocols/esn.md,
 * "Notification worker").
 */
import { ProblemError } from '@posthorn/contracts';

/** A failure that another try cannot mend. The reason goes into the dead letter. */
export class PermanentFailure extends Error {
  /** A short code for whoever lists dead letters: `payload_invalid`, `managers_unknown`, … */
  readonly code: string;

  constructor(code: string, reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'PermanentFailure';
    this.code = code;
  }
}

/** Waits between tries, in milliseconds: 1 s, 5 s, 30 s, 2 min, 10 min. After the last one: dead letter. */
export const BACKOFF = [1_000, 5_000, 30_000, 120_000, 600_000] as const;

/** What to do with an event. */
export type Settlement =
  | { readonly kind: 'ack' }
  | { readonly kind: 'retry'; readonly delay: number }
  /** Not the event's fault: tried again for as long as it takes. */
  | { readonly kind: 'hold'; readonly delay: number }
  | { readonly kind: 'dead'; readonly code: string; readonly reason: string };

/** The settlement of an event whose handler succeeded. */
export const DONE: Settlement = { kind: 'ack' };

/**
 * The settlement of a failure.
 * @param tries deliveries so far, this one included
 */
export function settleFailure(error: unknown, tries: number): Settlement {
  if (error instanceof PermanentFailure) return { kind: 'dead', code: error.code, reason: error.message };
  const delay = BACKOFF[tries - 1];
  if (error instanceof ProblemError) {
    // A database or a peer that is away says nothing about the event: an outage of an hour must not turn
    // an hour of events into dead letters.
    if (error.code === 'unavailable') return { kind: 'hold', delay: Math.min(delay ?? 30_000, 30_000) };
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
  return error instanceof Error ? error.message : String(error);
}
