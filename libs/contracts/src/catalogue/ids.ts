/** Ids in payloads (docs/protocols/events.md): strings, numbers, or objects with `_id` or `id`. */
import { type Static, Type } from '@sinclair/typebox';
import { ProblemError } from '../problem.js';

const PlainId = Type.Union([Type.String({ minLength: 1 }), Type.Number()]);

/** An object with an id and whatever else: a literal with more members, or a value of a narrower type. */
type With<Key extends string> =
  | { readonly [K in Key]: string | number }
  | ({ readonly [K in Key]: string | number } & { readonly [member: string]: unknown });

/** An id as real producers write it. {@link idOf} reads it. */
export const Id = Type.Union(
  [
    PlainId,
    Type.Unsafe<With<'_id'>>(Type.Object({ _id: PlainId })),
    Type.Unsafe<With<'id'>>(Type.Object({ id: PlainId })),
  ],
  { title: 'an id: a string, a number, or an object with _id or id' },
);
export type Id = Static<typeof Id>;

/**
 * The id that a value holds, as a string: ids are compared and written so, whichever form they came in.
 * An object's `_id` goes before its `id`.
 * @returns undefined for what is no id: an empty text or one that is not well-formed or holds NUL (neither a
 * subject nor PostgreSQL can carry those), a number that is not finite, an object with neither member, null.
 */
export function findId(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return plainId(value);
  return plainId(ownMember(value, '_id')) ?? plainId(ownMember(value, 'id'));
}

/**
 * As {@link findId}, for where an id is required.
 * @throws ProblemError `payload_invalid` for what is no id.
 */
export function idOf(value: unknown): string {
  const id = findId(value);
  if (id === undefined) throw new ProblemError('payload_invalid', `A member must be ${Id.title}`);
  return id;
}

function plainId(value: unknown): string | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : undefined;
  if (typeof value !== 'string' || value === '') return undefined;
  return value.isWellFormed() && !value.includes('\0') ? value : undefined;
}

function ownMember(object: object, name: '_id' | 'id'): unknown {
  return Object.hasOwn(object, name) ? (object as Record<string, unknown>)[name] : undefined;
}
