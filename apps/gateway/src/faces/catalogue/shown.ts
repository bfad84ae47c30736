/** A document as it is answered: its bytes, and the tag by which a caller asks whether it is still the same. */
import { hash } from 'node:crypto';

export interface Shown {
  readonly text: string;
  /** `ETag`. */
  readonly tag: string;
}

export function shown(text: string): Shown {
  return { text, tag: `"${hash('sha256', text, 'base64url')}"` };
}

/** Whether `If-None-Match` names a tag, by RFC 9110's weak comparison: proxies that compress weaken tags. */
export function matchesTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false;
  if (header.trim() === '*') return true;
  return header.split(',').some((one) => one.trim().replace(/^W\//, '') === tag);
}
