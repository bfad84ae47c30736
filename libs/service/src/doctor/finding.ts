import { CHECKS, type CheckId } from './checks.js';

/**
 * `unchecked` is for what could not be looked at: never taken for well. `warning` works today and is not how it should be;
 * `failure` does not work, or is unsafe.
 */
export type Severity = 'ok' | 'unchecked' | 'warning' | 'failure';

/** What one look found. Holds no secret. */
export interface Finding {
  readonly id: CheckId;
  readonly severity: Severity;
  /** What was found, without a full stop. */
  readonly found: string;
  readonly why: string;
  /** What to do; null where all is well. */
  readonly remedy: string | null;
}

export function ok(id: CheckId, found: string): Finding {
  return { id, severity: 'ok', found, why: CHECKS[id].why, remedy: null };
}

/** @param remedy for what is unchecked: how to look */
export function finding(
  id: CheckId,
  severity: Exclude<Severity, 'ok'>,
  found: string,
  remedy: string,
): Finding {
  return { id, severity, found, why: CHECKS[id].why, remedy };
}

/** The error's own words, or its code: a refused connection that was tried on several addresses has no message. */
export function reasonOf(error: unknown): string {
  const { message, code } = (error ?? {}) as { message?: string; code?: string };
  return message || code || String(error);
}
