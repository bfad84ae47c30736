/** Headers of calls that publish. */
import { checkEventId } from '@posthorn/bus/platform';
import { isTraceparent, ProblemError, unsampled } from '@posthorn/contracts';

/**
 * `Idempotency-Key`, where it was given.
 * @throws ProblemError `request_invalid`
 */
export function idempotencyKeyOf(header: string | undefined): string | undefined {
  try {
    return checkEventId(header);
  } catch (cause) {
    throw new ProblemError('request_invalid', 'Idempotency-Key is a printable text of 1 to 255 characters', {
      cause,
    });
  }
}

/**
 * `traceparent`, where it is one.
 * @param trusted whether the caller may have its trace recorded: an end user's is passed on as one that is not
 */
export function traceparentOf(header: string | undefined, trusted: boolean): { traceparent?: string } {
  if (!isTraceparent(header)) return {};
  return { traceparent: trusted ? header : unsampled(header) };
}
