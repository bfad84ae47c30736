/** What of a payload tells events apart or together: the values of some of its members. */
import { ProblemError } from '@posthorn/contracts';

/** The name of a member of the payload, or several. */
export type By = string | readonly string[];

/** The values as one text; undefined where one of them is missing or null: then nothing is known of the event. */
export function memberValues(message: Readonly<Record<string, unknown>>, by: By): string | undefined {
  const names = typeof by === 'string' ? [by] : by;
  const values = names.map((name) => (Object.hasOwn(message, name) ? (message[name] ?? null) : null));
  return values.includes(null) ? undefined : JSON.stringify(values);
}

/** @throws ProblemError `request_invalid` */
export function checkBy(what: string, { by, ms }: { by: By; ms: number }, longest: number): void {
  const names = typeof by === 'string' ? [by] : by;
  if (names.length === 0 || names.some((name) => typeof name !== 'string' || name === '')) {
    throw new ProblemError('request_invalid', `${what}.by must name a member of the payload, or several`);
  }
  if (!(Number.isSafeInteger(ms) && ms >= 1 && ms <= longest)) {
    throw new ProblemError('request_invalid', `${what}.ms must be a whole number from 1 to ${longest}`);
  }
}
