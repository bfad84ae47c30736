import { ProblemError } from '@posthorn/contracts';

/** Where a page of an inbox ended. */
export interface Place {
  readonly ordinal: string;
  readonly id: string;
}

const ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
const NOTIFICATION_ID = new RegExp(`^${ID}$`);
const PLACE = new RegExp(`^([1-9][0-9]{0,18}):(${ID})$`);

/** Whether a notification can have the id: PostgreSQL refuses what is no UUID. */
export function isNotificationId(id: string): boolean {
  return NOTIFICATION_ID.test(id);
}

export function formatPlace({ ordinal, id }: Place): string {
  return Buffer.from(`${ordinal}:${id}`).toString('base64url');
}

/** @throws ProblemError `request_invalid` for a cursor that is none */
export function parsePlace(cursor: string): Place {
  const match = PLACE.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  const [, ordinal = '', id = ''] = match ?? [];
  if (!match || formatPlace({ ordinal, id }) !== cursor || BigInt(ordinal) >= 2n ** 63n) {
    throw new ProblemError('request_invalid', 'The cursor is none of this inbox', {
      errors: [{ path: '/cursor', message: 'must be the next_cursor of another page' }],
    });
  }
  return { ordinal, id };
}
