/**
 * Positions (docs/protocols/events.md, "Order, gaps, positions"): `<epoch>-<sequence>`, opaque to clients.
 *
 * The epoch changes whenever sequences can no longer be compared with those given out before: another
 * stream under the same name, or one that was restored from an older state.
 */

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

/** What the registry writes into the bucket `ph-streams` for each stream. */
export interface StreamRecord {
  readonly stream: string;
  readonly epoch: string;
  /** ISO 8601, as the server gives it. */
  readonly created: string;
  readonly generation: number;
}
