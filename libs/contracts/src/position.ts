/**
 * Positions (docs/protocols/events.md, "Order, gaps, positions"): `<epoch>-<sequence>`, opaque to clients; and
 * cursors, positions of several topics at once.
 *
 * The epoch changes whenever sequences can no longer be compared with those given out before: another
 * stream under the same name, or one that was restored from an older state.
 */
import { decodePath } from './subject.js';

/** A place in a stream. `sequence` 0 is the place before the first event. */
export interface Position {
  readonly epoch: string;
  readonly sequence: number;
}

const POSITION = /^([0-9a-z]{1,24})-(0|[1-9][0-9]{0,15})$/;

/**
 * The epoch of a stream.
 * @param created the stream's creation time, in milliseconds since 1970
 * @param generation the registry's count of restores, 1 for a new stream
 * @throws RangeError for a time or a generation that is no such number
 */
export function makeEpoch(created: number, generation: number): string {
  if (!(created >= 0 && Number.isSafeInteger(generation) && generation >= 1)) {
    throw new RangeError(`no epoch of ${created} and ${generation}`);
  }
  // 'z' never occurs between the two: both are written in base 35.
  return `${Math.trunc(created).toString(35)}z${generation.toString(35)}`;
}

/** A position as clients see it. */
export function formatPosition(position: Position): string {
  return `${position.epoch}-${position.sequence}`;
}

/** A position from a client, or undefined where the text is none. */
export function parsePosition(text: string): Position | undefined {
  const match = POSITION.exec(text);
  if (!match) return undefined;
  const sequence = Number(match[2]);
  return Number.isSafeInteger(sequence) ? { epoch: match[1] as string, sequence } : undefined;
}

/**
 * A position of several topics at once: `sequence` is complete for all of them, and some were delivered beyond
 * it. A position is a cursor whose topics all stand at the same place.
 */
export interface Cursor extends Position {
  /** By path: the last sequence delivered of that topic, above the cursor's own. */
  readonly beyond?: ReadonlyMap<string, number>;
}

/** What a cursor may hold, so that it fits into a URL and a header. `length` is in characters. */
export const CURSOR_LIMIT = { topics: 128, length: 8_192 } as const;

const STEP = /^[1-9a-z][0-9a-z]{0,10}$/;

/** Up to which sequence a topic was delivered. */
export function reachedBy(cursor: Cursor, path: string): number {
  return cursor.beyond?.get(path) ?? cursor.sequence;
}

/** The furthest sequence that a cursor names: it is of no use where the stream has not come that far. */
export function furthestOf(cursor: Cursor): number {
  let furthest = cursor.sequence;
  for (const sequence of cursor.beyond?.values() ?? []) furthest = Math.max(furthest, sequence);
  return furthest;
}

/** Whether an event of a topic lies after what a cursor reached: a stream made anew begins after everything. */
export function isBeyond(position: Position, cursor: Cursor, path: string): boolean {
  return position.epoch !== cursor.epoch || position.sequence > reachedBy(cursor, path);
}

/**
 * A cursor as clients see it: `<position>`, then `~<steps beyond it, in base 36>.<path>` for each topic, by path.
 * @throws RangeError over {@link CURSOR_LIMIT}, or for a topic that is not beyond the cursor's own sequence
 */
export function formatCursor(cursor: Cursor): string {
  const topics = [...(cursor.beyond ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
  const entries = topics.map(([path, sequence]) => `~${(sequence - cursor.sequence).toString(36)}.${path}`);
  const text = formatPosition(cursor) + entries.join('');
  if (!parseCursor(text))
    throw new RangeError(`no cursor of ${topics.length} topics from ${cursor.sequence}`);
  return text;
}

/** A cursor or position from a client, or undefined where the text is neither. */
export function parseCursor(text: string): Cursor | undefined {
  if (text.length > CURSOR_LIMIT.length) return undefined;
  const [start, ...entries] = text.split('~');
  const position = parsePosition(start as string);
  if (!position || entries.length > CURSOR_LIMIT.topics) return undefined;
  if (entries.length === 0) return position;
  const beyond = new Map<string, number>();
  let before = '';
  for (const entry of entries) {
    const [step, ...rest] = entry.split('.');
    const path = rest.join('.');
    const sequence = position.sequence + Number.parseInt(step as string, 36);
    // Each cursor has one spelling: by path, and no path twice.
    if (!STEP.test(step as string) || !Number.isSafeInteger(sequence) || path <= before) return undefined;
    if (!decodePath(path)) return undefined;
    beyond.set(path, sequence);
    before = path;
  }
  return { ...position, beyond };
}

/** What the registry writes into the bucket `ph-streams` for each stream. */
export interface StreamRecord {
  readonly stream: string;
  readonly epoch: string;
  /** ISO 8601, as the server gives it. */
  readonly created: string;
  readonly generation: number;
}
