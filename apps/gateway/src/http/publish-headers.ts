/** Headers of calls that publish. */
import { checkEventId } from '@posthorn/bus/platform';
import { ProblemError } from '@posthorn/contracts';

const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

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

/** `traceparent`, where it is one. */
export function traceparentOf(header: string | undefined): { traceparent?: string } {
  return header && TRACEPARENT.test(header) ? { traceparent: header } : {};
}
