import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../logger.js';
import { StartError } from '../start-error.js';
import { CHECKS } from './checks.js';
import type { Finding } from './finding.js';
import { refusalText } from './report.js';

/** How long a look at the start may take, in milliseconds. */
const PATIENCE = 5_000;

/**
 * Looks at the start of an app, in production; elsewhere nothing is looked at. A look that takes too long or fails is no
 * reason to stop: what is not there yet is waited for as ever.
 *
 * @throws {StartError} as {@link heed}
 */
export async function checkAtStart(
  production: boolean,
  logger: Logger,
  look: () => readonly Finding[] | Promise<readonly Finding[]>,
): Promise<void> {
  if (!production) return;
  const over = new AbortController();
  const late = sleep(PATIENCE, undefined, { signal: over.signal, ref: false }).then(() => []);
  late.catch(() => undefined);
  try {
    const findings = await Promise.race([Promise.resolve().then(look), late]).catch((err: unknown) => {
      logger.warn({ err }, 'the look at the start failed: npm run doctor looks again');
      return [];
    });
    heed(findings, logger);
  } finally {
    over.abort();
  }
}

/**
 * What an app does with what was found at its start in production: ends with what is unsafe, and logs the rest once.
 *
 * @throws {StartError} at a failure of a check that stops a start
 */
export function heed(findings: readonly Finding[], logger: Logger): void {
  const unsafe = findings.filter(
    ({ id, severity }) => severity === 'failure' && CHECKS[id].atStart === 'stops',
  );
  if (unsafe.length > 0) throw new StartError(`It is not safe to run like this:\n${refusalText(unsafe)}`);
  for (const { id, severity, found, remedy } of findings) {
    const wrong = severity === 'failure' || severity === 'warning';
    if (wrong && CHECKS[id].atStart !== 'no') logger.warn({ check: id, severity, remedy }, found);
  }
}
