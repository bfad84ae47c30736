import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const POLL_MS = 200;
const WARN = 40;

/**
 * Follows an app's log file, JSON lines, from its present end, and hands on warnings and errors as readable lines.
 * @param {string} file
 * @param {(line: string) => void} print
 * @returns {() => void} ends the following
 */
export function followLog(file, print) {
  const descriptor = openSync(file, 'r');
  const buffer = Buffer.alloc(64 * 1024);
  let position = fstatSync(descriptor).size;
  let rest = '';
  const read = () => {
    for (;;) {
      const bytes = readSync(descriptor, buffer, 0, buffer.length, position);
      if (bytes === 0) return;
      position += bytes;
      const lines = (rest + buffer.toString('utf8', 0, bytes)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const readable = readableLine(line);
        if (readable) print(readable);
      }
    }
  };
  const timer = setInterval(read, POLL_MS).unref();
  return () => {
    clearInterval(timer);
    closeSync(descriptor);
  };
}

/**
 * @param {string} line
 * @returns {string | undefined} undefined for what is no warning
 */
export function readableLine(line) {
  /** @type {{ level?: number | string, time?: number | string, msg?: string, err?: { message?: string } }} */
  let entry;
  try {
    entry = JSON.parse(line);
  } catch {
    // What is no log entry is a crash's last words.
    return line || undefined;
  }
  const levels = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60 };
  const level =
    typeof entry.level === 'string' ? levels[/** @type {keyof levels} */ (entry.level)] : entry.level;
  if (!level || level < WARN) return undefined;
  const name = level >= 60 ? 'fatal' : level >= 50 ? 'error' : 'warn';
  const time = new Date(entry.time ?? Date.now()).toTimeString().slice(0, 8);
  const reason = entry.err?.message && entry.err.message !== entry.msg ? `: ${entry.err.message}` : '';
  return `${time} ${name.padEnd(5)} ${entry.msg ?? ''}${reason}${detailsOf(entry)}`;
}

/**
 * The plain fields of an entry, beside those of every entry.
 * @param {object} entry
 */
function detailsOf(entry) {
  const common = new Set(['level', 'time', 'app', 'instance', 'msg', 'err', 'pid', 'hostname']);
  const fields = Object.entries(entry).filter(
    ([name, value]) => !common.has(name) && ['string', 'number', 'boolean'].includes(typeof value),
  );
  return fields.length > 0 ? ` (${fields.map(([name, value]) => `${name} ${value}`).join(', ')})` : '';
}
