/** What pages of several faces are asked for with. Each check adds to the findings of the call. */
import { type Finding, PAGE } from '@posthorn/contracts';

/** `limit`: how many items a page has at most. */
export function pageLimit(value: unknown, errors: Finding[]): number {
  const limit = value === undefined ? PAGE.default : wholeNumber(value);
  if (!(limit >= 1 && limit <= PAGE.max)) {
    errors.push({ path: '/limit', message: `must be a whole number from 1 to ${PAGE.max}` });
  }
  return limit;
}

/** `cursor`: where the page before ended. */
export function pageCursor(value: unknown, errors: Finding[]): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '' && value.length <= 200) return value;
  errors.push({ path: '/cursor', message: 'must be a next_cursor' });
  return undefined;
}

/** A number in plain digits, else NaN. */
function wholeNumber(value: unknown): number {
  return typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
}
