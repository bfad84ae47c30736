/**
 * Where a reader of a topic stands, as far as the SDK looks into positions (docs/protocols/events.md, "Order, gaps,
 * positions"): of `<epoch>-<sequence>`, which a cursor begins with, sequences of one epoch are compared.
 */

export interface Place {
  readonly epoch: string;
  readonly sequence: number;
}

/** The place that a position names, of a cursor that up to which all of its topics are complete. */
export function placeOf(position: string | undefined): Place | undefined {
  const match = /^([0-9a-z]+)-(\d+)/.exec(position ?? '');
  return match ? { epoch: match[1] as string, sequence: Number(match[2]) } : undefined;
}

/** The most sequences that a reader of a pattern remembers. */
export const SEEN_LIMIT = 65_536;

/** What a reader had, and where it is resumed from. */
export interface Reader {
  /** A position or cursor: everything up to there was delivered. Undefined until the reader has begun. */
  since: string | undefined;
  /** Nothing at or below is delivered again. */
  floor: Place | undefined;
  /**
   * Of a pattern, what was delivered above the floor: topics keep no order among each other, so that nothing says
   * that everything below was delivered, too. Undefined for a topic.
   */
  readonly seen: Set<number> | undefined;
}

export function newReader(since: string | undefined, ofPattern: boolean): Reader {
  return { since, floor: placeOf(since), seen: ofPattern ? new Set() : undefined };
}

/** Notes an event; false where the reader had it. What has no place is always new. */
export function take(reader: Reader, position: string | undefined): boolean {
  const place = placeOf(position);
  if (!place) return true;
  const { floor, seen } = reader;
  const follows = floor !== undefined && floor.epoch === place.epoch;
  if (follows && (place.sequence <= floor.sequence || seen?.has(place.sequence))) return false;
  if (!seen) {
    reader.floor = place;
    reader.since = position;
    return true;
  }
  if (!follows) restart(reader, { epoch: place.epoch, sequence: 0 }, `${place.epoch}-0`);
  seen.add(place.sequence);
  // The oldest is forgotten first: a repeat is then possible, a loss is not.
  if (seen.size > SEEN_LIMIT) for (const oldest of seen) return seen.delete(oldest);
  return true;
}

/** Takes over a place up to which everything was delivered. One behind what the reader knows is passed over. */
export function settle(reader: Reader, cursor: string): void {
  const place = placeOf(cursor);
  const { floor, seen } = reader;
  if (!place || !floor) return;
  if (floor.epoch === place.epoch && place.sequence < floor.sequence) return;
  // A topic's own place is beyond what a cursor says of others: its beginning is enough, and short.
  restart(reader, place, seen ? cursor : `${place.epoch}-${place.sequence}`);
}

/** Puts a reader to a place from which delivery goes on, with or without what lies between. */
export function restart(reader: Reader, place: Place | undefined, since: string | undefined): void {
  const { floor, seen } = reader;
  const goesOn = floor && place && floor.epoch === place.epoch && place.sequence >= floor.sequence;
  if (!goesOn) seen?.clear();
  else if (seen) for (const sequence of seen) if (sequence <= place.sequence) seen.delete(sequence);
  reader.floor = place;
  reader.since = since;
}

/** Whether a reader has had everything up to a place. */
export function covers({ floor }: Reader, place: Place | undefined): boolean {
  return (
    floor !== undefined &&
    place !== undefined &&
    floor.epoch === place.epoch &&
    floor.sequence >= place.sequence
  );
}

/** Whether a reader has had everything up to a place, and nothing beyond. */
export function isAt({ since, seen }: Reader, place: string): boolean {
  return since === place && !seen?.size;
}
