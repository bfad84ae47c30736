import { QueryRunnerAlreadyReleasedError, QueryRunnerProviderAlreadyReleasedError } from 'typeorm';

/** What TypeORM, pg, and Node put on their errors. */
interface Failure {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly driverError?: unknown;
  readonly cause?: unknown;
  readonly errors?: unknown;
}

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EPIPE',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
]);

/**
 * SQLSTATEs of a server that goes down, comes up, or has no capacity: administrator or crash shutdown,
 * starting up, too many connections, a statement past its time, and a primary that became a standby.
 */
const STATES = new Set(['57P01', '57P02', '57P03', '57P05', '53300', '57014', '25006', '25P03']);

/** pg reports a broken or exhausted pool by message alone. */
const MESSAGES =
  /^(Connection terminated|timeout exceeded when trying to connect|timeout expired|Query read timeout|Client (has encountered a connection error|was closed)|Cannot use a pool after)/;

/** Every error inside an error: TypeORM wraps the driver's, Node wraps one per address it tried. */
function* within(error: unknown): Generator<Failure> {
  if (typeof error !== 'object' || error === null) return;
  const failure = error as Failure;
  yield failure;
  yield* within(failure.driverError ?? failure.cause);
  if (Array.isArray(failure.errors)) for (const one of failure.errors) yield* within(one);
}

/**
 * Whether an error means that the database cannot be reached or cannot serve now, so that the same call may
 * work later. Nothing of a transaction that failed this way is stored, unless it failed in its COMMIT: then
 * nobody knows.
 */
export function isUnavailable(error: unknown): boolean {
  for (const failure of within(error)) {
    const { code, message } = failure;
    if (typeof code === 'string' && (NETWORK.has(code) || STATES.has(code) || /^08...$/.test(code)))
      return true;
    if (typeof message === 'string' && MESSAGES.test(message)) return true;
    // The connection broke between two statements of a transaction.
    if (failure instanceof QueryRunnerAlreadyReleasedError) return true;
    if (failure instanceof QueryRunnerProviderAlreadyReleasedError) return true;
  }
  return false;
}

/** Whether a transaction lost against another one, and would work when run again. */
export function isConflict(error: unknown): boolean {
  for (const { code } of within(error)) if (code === '40001' || code === '40P01') return true;
  return false;
}
