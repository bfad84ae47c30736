/** What stands on timelines, from the events of docs/protocols/esn.md, "Timeline". */
import { PermanentFailure } from '@posthorn/bus';
import type { EventPayload } from '@posthorn/bus/nest';
import { findId, PAYLOAD_LIMIT, ProblemError, type TimelineItem } from '@posthorn/contracts';
import { keys } from '../worker/notice.js';

/** On how many timelines one activity may stand. */
export const TARGET_LIMIT = 10_000;

/** What the content may have beyond the payload that it is made of, in bytes. */
const FRAME_BYTES = 4_096;

/** The latest moment with four digits for its year. */
const LATEST = Date.UTC(9999, 11, 31, 23, 59, 59, 999);

/** A date, or a moment with its zone: anything else means another moment on another machine. */
const READABLE = /^\d{4}-\d\d-\d\d$|^\S.*(?:Z|UTC|GMT|[+-]\d\d:?\d\d)(?: \(.*\))?$/;

/** Something that somebody did, as it is stored. */
export interface Activity {
  /** An item's JSON without its id. */
  readonly content: string;
  /** The ids of those on whose timelines it stands, each once. */
  readonly targets: readonly string[];
}

/**
 * `message:activity`, in its long or its short form.
 * @param storedAt when the event was stored, in nanoseconds since 1970
 */
export function messageActivity(payload: EventPayload<'message:activity'>, storedAt: bigint): Activity {
  if ('actor' in payload && 'object' in payload && 'target' in payload) {
    const { published, target, ...rest } = payload;
    return activity({ ...rest, published: moment(published, storedAt), target }, keysOf('target', target));
  }
  const { source, targets, message, date, ...rest } = payload;
  return activity(
    { ...rest, published: moment(date, storedAt), actor: source, object: message, target: targets },
    keysOf('targets', targets),
  );
}

/** `community:join`: stands on the timeline of the community, and of who has joined. */
export function joinActivity(
  { author, target, community }: EventPayload<'community:join'>,
  storedAt: bigint,
): Activity {
  const place = reference(community, 'community');
  return activity(
    {
      verb: 'join',
      published: moment(undefined, storedAt),
      actor: reference(author, 'user'),
      object: place,
      target: [place, reference(target, 'user')],
    },
    [...new Set([...keys('community', [community]), ...keys('target', [target])])],
  );
}

function activity(item: Omit<TimelineItem, 'id'>, targets: readonly string[]): Activity {
  const { id: _, ...rest } = item;
  let content: string;
  try {
    content = JSON.stringify(rest);
  } catch (cause) {
    // JSON.stringify() recurses where JSON.parse() does not.
    throw new PermanentFailure('payload_invalid', 'The payload is nested too deeply', { cause });
  }
  // Numbers can be longer than they were sent.
  if (Buffer.byteLength(content) > PAYLOAD_LIMIT.service + FRAME_BYTES) {
    throw new ProblemError('payload_too_large', 'The activity would be larger than 1 MiB');
  }
  return { content, targets };
}

function keysOf(member: string, targets: readonly unknown[]): string[] {
  if (targets.length > TARGET_LIMIT) {
    throw new PermanentFailure('payload_invalid', `/${member} holds more than ${TARGET_LIMIT} targets`);
  }
  return keys(member, targets);
}

/** When it happened as ISO 8601: as the publisher says where that can be read, else when it was stored. */
function moment(value: unknown, storedAt: bigint): string {
  const text = typeof value === 'string' && READABLE.test(value);
  const time = typeof value === 'number' ? value : text ? Date.parse(value) : Number.NaN;
  const readable = time >= 0 && time <= LATEST;
  return new Date(readable ? time : Number(storedAt / 1_000_000n)).toISOString();
}

/** An object as it was sent, an id with what it is the id of. */
function reference(value: unknown, objectType: string): unknown {
  return typeof value === 'object' ? value : { objectType, id: findId(value) };
}
