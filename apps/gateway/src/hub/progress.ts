/**
 * A cursor that goes on with what a client is handed, event by event, on several filters at once: a place that is
 * complete for all of them, and the topics that were delivered beyond it.
 */
import type { BusEvent } from '@posthorn/bus';
import { type Cursor, formatCursor, type Position, reachedBy } from '@posthorn/contracts';

/** The cursor after one more event. */
export function taken(cursor: Cursor, { path, position }: BusEvent): Cursor {
  const from = position.epoch === cursor.epoch ? cursor : { epoch: position.epoch, sequence: 0 };
  const beyond = new Map(from.beyond);
  beyond.set(path, Math.max(position.sequence, reachedBy(from, path)));
  return { epoch: from.epoch, sequence: from.sequence, beyond };
}

/** The cursor with what is complete for all its topics up to a place said in one number. */
export function settled(cursor: Cursor, { epoch, sequence: complete }: Position): Cursor {
  if (epoch !== cursor.epoch) return cursor;
  const sequence = Math.max(cursor.sequence, complete);
  const beyond = new Map<string, number>();
  for (const [path, reached] of cursor.beyond ?? []) if (reached > sequence) beyond.set(path, reached);
  return beyond.size > 0 ? { epoch, sequence, beyond } : { epoch, sequence };
}

/** A cursor as text; undefined where it holds more than one may. */
export function placeOf(cursor: Cursor): string | undefined {
  try {
    return formatCursor(cursor);
  } catch {
    return undefined;
  }
}
