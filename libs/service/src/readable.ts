/** Lines of the log as text, for whoever runs an app in a terminal. */

/** What stands in each line, or has a place of its own. */
const COMMON: ReadonlySet<string> = new Set(['level', 'time', 'app', 'instance', 'msg', 'err']);

/** `12:00:01 warn  gateway  waiting for NATS (reason refused)`, and below it the stack of an error. */
export function readableLine(json: string): string {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(json);
  } catch {
    return json;
  }
  const { level, time, app, msg, err } = entry;
  const fields = Object.entries(entry)
    .filter(([name]) => !COMMON.has(name))
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const head = [
    new Date(String(time)).toTimeString().slice(0, 8),
    String(level).padEnd(5),
    String(app).padEnd(8),
    String(msg ?? ''),
    ...(fields.length > 0 ? [`(${fields.join(', ')})`] : []),
  ].join(' ');
  return `${head}\n${stackOf(err)}`;
}

function stackOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  const { stack, message, cause } = error as { stack?: string; message?: string; cause?: unknown };
  const text = String(stack ?? message ?? '').replace(/^/gm, '    ');
  const causes = cause === undefined ? '' : stackOf(cause);
  return `${text}\n${causes && `    caused by:\n${causes}`}`;
}
