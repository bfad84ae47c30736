/** One event on two scopes: the document's controllers publish messages and activities on both. */
import { asProblem, type IdempotencyScope, messageId, ProblemError, type Scope } from '@posthorn/contracts';
import { newEventId } from './jetstream/event-id.js';
import type { Receipt } from './port.js';

type Side = readonly [scope: Scope, publish: () => Promise<Receipt>];

/**
 * Publishes on both. Resolves once both are taken.
 * @throws ProblemError the one's where neither was taken; where one was, the other's, saying which is missing. The
 *   same key again stores only that one.
 */
export async function publishOnBoth(first: Side, second: Side): Promise<[Receipt, Receipt]> {
  const [one, two] = await Promise.allSettled([first[1](), second[1]()]);
  if (one.status === 'rejected' && two.status === 'rejected') throw one.reason;
  if (one.status === 'rejected') throw missing(second[0], first[0], one.reason);
  if (two.status === 'rejected') throw missing(first[0], second[0], two.reason);
  return [one.value, two.value];
}

/** The id that both are published under: with a key of the caller's the same in each try, so that a repeat completes. */
export function idOnBoth(
  publish: Omit<IdempotencyScope, 'scope' | 'instance' | 'key'>,
  key: string | undefined,
): string {
  return key === undefined ? newEventId() : messageId({ ...publish, scope: 'global', instance: null, key });
}

function missing(done: Scope, missed: Scope, reason: unknown): ProblemError {
  const { code, detail, errors, retryAfter } = asProblem(reason);
  return new ProblemError(
    code,
    `Published on ${done}, missing on ${missed}: ${detail}. The same call with the same key is safe to repeat`,
    { cause: reason, ...(errors ? { errors } : {}), ...(retryAfter === undefined ? {} : { retryAfter }) },
  );
}
