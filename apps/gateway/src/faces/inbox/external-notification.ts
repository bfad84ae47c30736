/** The body of `POST /v1/notifications`, and what becomes of it. */
import { type Finding, findId, PAYLOAD_LIMIT, ProblemError } from '@posthorn/contracts';

/** How many targets one call names at most, and how many recipients they come to. */
export const TARGETS = 1_000;
export const RECIPIENTS = 10_000;

/** The longest id of a user or a community, in bytes. */
const ID_BYTES = 255;

/** The longest of the texts, in characters. */
const TEXT_LIMIT = 2_000;

/** Bytes of one event: a notification has more around it, and has to fit into an event itself. */
const EVENT_BYTES = PAYLOAD_LIMIT.service - 64 * 1024;

/** Bytes of all events that one call makes. */
const CALL_BYTES = 64 * 1024 * 1024;

/** Somebody to be notified, or everybody of a community. */
export interface NotificationTarget {
  readonly objectType: 'user' | 'community';
  readonly id: string;
}

/** A `notification:external` without its recipient. */
export interface ExternalNotification {
  readonly title: string;
  readonly action: string;
  readonly object: unknown;
  readonly link: string;
  readonly level: string;
  readonly data?: unknown;
  readonly author?: string;
}

/**
 * @param author the caller's id, where it has one
 * @throws ProblemError `request_invalid` with a finding for each field that is not as it has to be
 */
export function parseNotification(
  body: Record<string, unknown>,
  author: string | null,
): { notification: ExternalNotification; targets: readonly NotificationTarget[] } {
  const errors: Finding[] = [];
  const text = (name: string): string => {
    const value = body[name];
    if (typeof value === 'string' && value !== '' && value.length <= TEXT_LIMIT) return value;
    errors.push({ path: `/${name}`, message: `must be a text of 1 to ${TEXT_LIMIT} characters` });
    return '';
  };
  const notification = {
    title: text('title'),
    action: text('action'),
    object: body.object,
    link: text('link'),
    level: text('level'),
    ...(body.data === undefined ? {} : { data: body.data }),
    ...(author === null ? {} : { author }),
  };
  if (findId(body.object) === undefined) errors.push({ path: '/object', message: 'must be an id' });
  const targets = parseTargets(body.target, errors);
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', 'The body does not have the expected form', {
      errors: errors.slice(0, 20),
    });
  }
  return { notification, targets };
}

/**
 * What one recipient's event holds.
 * @param community by which the recipient was named, where it was not named itself
 */
export function payloadFor(
  notification: ExternalNotification,
  recipient: string,
  community: string | undefined,
): object {
  return {
    ...notification,
    target: recipient,
    ...(community === undefined ? {} : { context: { objectType: 'community', id: community } }),
  };
}

/**
 * How many bytes it has.
 * @throws ProblemError `payload_too_large`
 */
export function checkedSize(notification: ExternalNotification, recipients: number): number {
  const bytes = Buffer.byteLength(JSON.stringify(notification));
  if (bytes > EVENT_BYTES) {
    throw new ProblemError('payload_too_large', `A notification has at most ${EVENT_BYTES} bytes`);
  }
  if (bytes * recipients > CALL_BYTES) {
    throw new ProblemError(
      'payload_too_large',
      `A call makes events of at most ${CALL_BYTES} bytes in all: send less, or to fewer at once`,
    );
  }
  return bytes;
}

function parseTargets(value: unknown, errors: Finding[]): NotificationTarget[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > TARGETS) {
    errors.push({ path: '/target', message: `must be a list of 1 to ${TARGETS} targets` });
    return [];
  }
  return value.map((target, i): NotificationTarget => {
    const { objectType, id } = (target ?? {}) as Record<string, unknown>;
    if (objectType !== 'user' && objectType !== 'community') {
      errors.push({ path: `/target/${i}/objectType`, message: 'must be user or community' });
    }
    const text = findId(id);
    if (text === undefined || Buffer.byteLength(text) > ID_BYTES) {
      errors.push({ path: `/target/${i}/id`, message: `must be an id of at most ${ID_BYTES} bytes` });
    }
    return { objectType: objectType as NotificationTarget['objectType'], id: text ?? '' };
  });
}
