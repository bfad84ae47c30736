/** Where a page ended, of an inbox or of a timeline, and the cursor that says it. */
import { ProblemError } from '@posthorn/contracts';

export interface Place {
  readonly ordinal: string;
  readonly id: string;
}

const ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
const ROW_ID = new RegExp(`^${ID}$`);
const PLACE = new RegExp(`^([1-9][0-9]{0,18}):(${ID})$`);

/** Whether a row can have the id: PostgreSQL refuses what is no UUID. */
export function isRowId(id: string): boolean {
  return ROW_ID.test(id);
}

export function formatPlace({ ordinal, id }: Place): string {
  return Buffer.from(`${ordinal}:${id}`).toString('base64url');
}

/** @throws ProblemError `request_invalid` for a cursor that is none */
export function parsePlace(cursor: string): Place {
  const match = PLACE.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  const [, ordinal = '', id = ''] = match ?? [];
  if (!match || formatPlace({ ordinal, id }) !== cursor || BigInt(ordinal) >= 2n ** 63n) {
    throw new ProblemError('request_invalid', 'The cursor is none of these pages', {
      errors: [{ path: '/cursor', message: 'must be the next_cursor of another page' }],
    });
  }
  return { ordinal, id };
}
